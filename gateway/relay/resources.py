"""Resources: which server has one by what was listed last, who is asked when nobody lists it, and reading it.

Source: specification 2026-07-28 and 2025-11-25, server/resources.
"""

import asyncio
import time
from typing import Final

import msgspec
from msgspec import Raw, Struct

from gateway.mcp import jsonrpc
from gateway.mcp.capabilities import ServerCapabilities
from gateway.mcp.era_bridge_errors import RESOURCE_NOT_FOUND
from gateway.mcp.inbound import Request
from gateway.mcp.resource_uris import Offered, ResourceRoutes
from gateway.mcp.revisions import Era
from gateway.relay.aggregation import Part, may_offer, parts
from gateway.relay.forwarding import Caller, Refusal, forward
from gateway.relay.registry import Server, WorkspaceView

LISTS: Final = {"resources/list": "resources", "resources/templates/list": "resourceTemplates"}
REFRESH_AFTER_S: Final = 5.0
"""How often a URI that nobody lists makes the servers list anew, at most."""


class _Item(Struct, rename="camel"):
    uri: str = ""
    uri_template: str = ""


_NULL: Final = Raw(b"null")
_SHOWN_URI: Final = 256
_decode: Final = msgspec.json.Decoder(_Item).decode


def offers(declared: ServerCapabilities) -> bool:
    """Whether a server has resources."""
    return declared.resources is not None


async def listed(view: WorkspaceView, method: str, token_id: str) -> list[Part]:
    """Ask the servers for their resources, or for their templates, and keep which are whose."""
    found = await parts(view.servers.values(), method, LISTS[method], offers, token_id)
    kept = view.uris if method == "resources/list" else view.templates
    for server, items in found:
        if isinstance(items, list):
            kept[server.slug] = [name for item in items if (name := _name(item))]
    view.resources = ResourceRoutes(
        Offered(slug, view.uris.get(slug, ()), view.templates.get(slug, ()))
        for slug, server in view.servers.items()
        if may_offer(server, offers)
    )
    return found


async def servers_of(view: WorkspaceView, uri: str, token_id: str) -> list[Server]:
    """Who may have it, the likeliest first; a URI that nobody lists is worth one look at the servers."""
    if view.resources.route(uri) is None:
        await _look(view, token_id)
    return [view.servers[slug] for slug in view.resources.candidates(uri)]


async def servers_of_template(view: WorkspaceView, uri: str, token_id: str) -> list[Server]:
    """Who has a template, the likeliest first: those that list it as it is written, else as `servers_of`."""
    likely = await servers_of(view, uri, token_id)
    listing = [server for slug, server in view.servers.items() if uri in view.templates.get(slug, ())]
    return listing or likely


async def read(view: WorkspaceView, request: Request, caller: Caller, server_info: Raw) -> Raw | Refusal:
    """Read a resource where it is. One that nobody lists is looked for at every server; none hides another's."""
    try:
        uri = jsonrpc.decode_string(request.params.get("uri", _NULL))
    except jsonrpc.NO_JSON:
        return Refusal(jsonrpc.INVALID_PARAMS, "'params.uri' must be a text: resources/list has the resources")
    missing, failed = unknown(uri, request.era), None
    for server in await servers_of(view, uri, caller.token_id):
        outcome = await forward(server, request, caller, request.params, uri, server_info)
        if not isinstance(outcome, Refusal):
            return outcome
        if outcome.code in (jsonrpc.INVALID_PARAMS, RESOURCE_NOT_FOUND):
            missing = _missing(outcome, uri, request.era, server.upstream.era)
        elif view.resources.route(uri) is not None:
            return outcome
        else:
            failed = failed or outcome  # it may have it: nobody can say that it is not there
    return failed or missing


def unknown(uri: str, era: Era) -> Refusal:
    """What a URI is answered that no server is behind."""
    code = jsonrpc.INVALID_PARAMS if era is Era.MODERN else RESOURCE_NOT_FOUND
    return Refusal(code, f"no server of this workspace has the resource {uri[:_SHOWN_URI]!r}", {"uri": uri})


def _missing(refusal: Refusal, uri: str, client: Era, upstream: Era | None) -> Refusal:
    """A server's word that a resource is not there, as the other era has it (SEP-2164)."""
    if client is upstream:
        return refusal
    if client is Era.MODERN:
        return refusal if refusal.data is not None else refusal._replace(data={"uri": uri})
    return refusal._replace(code=RESOURCE_NOT_FOUND) if _uri(refusal.data) == uri else refusal


def _uri(data: Raw | None) -> str:
    try:
        return _decode(data).uri if data is not None else ""
    except jsonrpc.NO_JSON:
        return ""


async def _look(view: WorkspaceView, token_id: str) -> None:
    """List all servers' resources anew, if that was not just done; whoever comes meanwhile waits for it as well."""
    if view.resources_listing is None:
        if time.monotonic() - view.resources_listed_at <= REFRESH_AFTER_S:
            return
        view.resources_listed_at = time.monotonic()
        view.resources_listing = asyncio.create_task(_list_all(view, token_id))
    await asyncio.shield(view.resources_listing)


async def _list_all(view: WorkspaceView, token_id: str) -> None:
    try:
        await asyncio.gather(*(listed(view, method, token_id) for method in LISTS))
    finally:
        view.resources_listing = None


def _name(item: Raw) -> str:
    try:
        named = _decode(item)
    except jsonrpc.NO_JSON:
        return ""
    return named.uri or named.uri_template
