"""Resources: their lists, which server has a URI according to the last list, and reading it there.

Source: specification 2026-07-28 and 2025-11-25, server/resources.
"""

import asyncio
import time
from typing import Final

import msgspec
from msgspec import Raw, Struct

from gateway.mcp import jsonrpc
from gateway.mcp.era_bridge import RESOURCE_NOT_FOUND
from gateway.mcp.resource_uris import Offered, ResourceRoutes
from gateway.mcp.revisions import Era
from gateway.relay.aggregation import Part, may_have, parts
from gateway.relay.forwarding import Caller, forward
from gateway.relay.registry import Server, WorkspaceView
from gateway.relay.responses import JsonRpcError

REFRESH_AFTER_S: Final = 5.0
"""Within this time, only the first URI that no server lists makes the relay list all resources again."""
_NULL: Final = Raw(b"null")
_SHOWN_URI: Final = 256


class _Item(Struct, rename="camel"):
    uri: str = ""
    uri_template: str = ""


_decode: Final = msgspec.json.Decoder(_Item).decode


async def listed(view: WorkspaceView, method: str, token_id: str) -> list[Part]:
    """Ask the servers for their resources, or for their templates, and remember whose they are."""
    found = await parts(view.servers.values(), method, "resources", token_id)
    kept = view.uris if method == "resources/list" else view.templates
    for server, items in found:
        if isinstance(items, list):
            kept[server.slug] = [name for item in items if (name := _uri_of(item))]
    view.resources = ResourceRoutes(
        Offered(slug, view.uris.get(slug, ()), view.templates.get(slug, ()))
        for slug, server in view.servers.items()
        if may_have(server, "resources")
    )
    return found


async def servers_of(view: WorkspaceView, uri: str, token_id: str) -> list[Server]:
    """The servers that may have the resource, the likeliest first; a URI that no server lists has them list again."""
    if view.resources.route(uri) is None:
        await _refresh(view, token_id)
    return [view.servers[slug] for slug in view.resources.candidates(uri)]


async def servers_of_template(view: WorkspaceView, uri: str, token_id: str) -> list[Server]:
    """The servers that list the template to the letter, else those that may have it as a resource."""
    likely = await servers_of(view, uri, token_id)
    listing = [server for slug, server in view.servers.items() if uri in view.templates.get(slug, ())]
    return listing or likely


async def read(caller: Caller) -> Raw:
    """`resources/read` at the server that has it. If no server lists the URI, each is asked until one has it.

    Raises:
        JsonRpcError: no server has it; or one that may have it failed.
    """
    view, request = caller.call.view, caller.call.request
    uri = uri_of(request.params)
    missing, failed = unknown(uri, request.era), None
    for server in await servers_of(view, uri, caller.call.principal.token_id):
        try:
            return await forward(caller, server, request.params, uri)
        except JsonRpcError as error:
            if error.code in (jsonrpc.INVALID_PARAMS, RESOURCE_NOT_FOUND):
                missing = _missing(error, uri, request.era)
            elif view.resources.route(uri) is not None:
                raise
            else:
                failed = failed or error  # this server may have it, so it is not known to be missing
    raise failed or missing


def uri_of(params: jsonrpc.Params) -> str:
    """The `uri` of a request's params.

    Raises:
        JsonRpcError: it is not a string.
    """
    try:
        return jsonrpc.decode_string(params.get("uri", _NULL))
    except jsonrpc.DECODE_ERRORS:
        message = "'params.uri' must be a string: resources/list has the resources of this workspace"
        raise JsonRpcError(jsonrpc.INVALID_PARAMS, message) from None


def unknown(uri: str, era: Era) -> JsonRpcError:
    """The error for a URI that no server has, in the client's era."""
    code = jsonrpc.INVALID_PARAMS if era is Era.MODERN else RESOURCE_NOT_FOUND
    return JsonRpcError(code, f"no server of this workspace has the resource {uri[:_SHOWN_URI]!r}", {"uri": uri})


def _missing(error: JsonRpcError, uri: str, client: Era) -> JsonRpcError:
    """A server's error for a missing resource, in the words of the client's era (SEP-2164)."""
    if error.era is client:
        return error
    if client is Era.MODERN:
        return error if error.data is not None else JsonRpcError(error.code, str(error), {"uri": uri})
    named = _uri_of(error.data) if isinstance(error.data, Raw) else None
    return JsonRpcError(RESOURCE_NOT_FOUND, str(error), error.data) if named == uri else error


async def _refresh(view: WorkspaceView, token_id: str) -> None:
    """List the resources of all servers, unless that was just done; requests that come meanwhile wait for it."""
    if view.resources_listing is None:
        if time.monotonic() - view.resources_listed_at <= REFRESH_AFTER_S:
            return
        view.resources_listed_at = time.monotonic()
        view.resources_listing = asyncio.create_task(_list_all(view, token_id))
    await asyncio.shield(view.resources_listing)


async def _list_all(view: WorkspaceView, token_id: str) -> None:
    try:
        lists = ("resources/list", "resources/templates/list")
        await asyncio.gather(*(listed(view, method, token_id) for method in lists))
    finally:
        view.resources_listing = None


def _uri_of(item: Raw) -> str:
    try:
        named = _decode(item)
    except jsonrpc.DECODE_ERRORS:
        return ""
    return named.uri or named.uri_template
