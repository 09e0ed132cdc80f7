"""Everything that a client may ask beside `tools/call`: answered here, merged of all servers, or asked of one.

Source: specification 2026-07-28, server/discover, server/tools, server/prompts, server/resources,
server/utilities/completion and server/utilities/caching; 2025-11-25, lifecycle.
"""

import asyncio
from typing import Any, Final

from mcp_types import SERVER_INFO_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import Raw

from gateway import __version__
from gateway.mcp import capabilities, completion_refs, jsonrpc, names, translation
from gateway.mcp.capabilities import ServerCapabilities, Serves
from gateway.mcp.error_translation import RESOURCE_NOT_FOUND
from gateway.mcp.inbound import Request
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, Era, negotiate
from gateway.relay import resources
from gateway.relay.forwarding import Asker, Refusal, forward
from gateway.relay.listing import Offers, Part, may_offer, merged, parts
from gateway.relay.resources import LISTS
from gateway.relay.upstream.seam import Client, Notify, UpstreamError
from gateway.relay.workspaces import Server, WorkspaceView

_NULL: Final = Raw(b"null")
_PAGED: Final = frozenset({"tools/list", "prompts/list", *LISTS})


def _has_prompts(declared: ServerCapabilities) -> bool:
    return declared.prompts is not None


def _has_completions(declared: ServerCapabilities) -> bool:
    return declared.completions is not None


_OFFERED: Final[dict[str, Offers]] = {
    "prompts/list": _has_prompts,
    "prompts/get": _has_prompts,
    **dict.fromkeys((*LISTS, "resources/read"), resources.offers),
    "completion/complete": _has_completions,
}
"""What at least one server must have, for the method to be one of the workspace's."""


def served(era: Era, *, sessions: bool) -> Serves:
    """What the gateway serves to a client of this era, beside tools."""
    streams = sessions or era is Era.MODERN
    return Serves(logging=era is Era.LEGACY and sessions, changes=streams, subscriptions=streams)


def can_follow(view: WorkspaceView) -> bool:
    """Whether a server of the workspace lets its resources be followed."""
    declared = (capabilities.read_server(server.upstream.declared) for server in view.servers.values())
    return any(one.resources is not None and one.resources.subscribe for one in declared)


async def answer(  # noqa: C901 - one arm for each method
    view: WorkspaceView,
    request: Request,
    *,
    token_id: str,
    client: Client | None = None,
    notify: Notify | None = None,
    sessions: bool = False,
) -> Raw | Refusal:
    """The result of a request that is no tool call."""
    asker = Asker(token_id, client, notify)
    offered = _OFFERED.get(request.method)
    if offered is not None and not any(may_offer(server, offered) for server in view.servers.values()):
        return _unknown(request)
    if request.method in _PAGED and request.params.get("cursor", _NULL) != _NULL:
        return Refusal(jsonrpc.INVALID_PARAMS, f"no such cursor: {request.method} answers with one page")
    match request.method, request.era:
        case "initialize", Era.LEGACY:
            return await _initialize(view, request, served(request.era, sessions=sessions))
        case "ping", Era.LEGACY:
            return jsonrpc.EMPTY_OBJECT
        case "server/discover", Era.MODERN:
            return await _discover(view, request)
        case "tools/list", _:
            return await _list_tools(view, request)
        case "prompts/list", _:
            found = await parts(view.servers.values(), "prompts/list", "prompts", _has_prompts, token_id)
            return _listed(view, request, merged("prompts", found, _prefixed))
        case (("resources/list" | "resources/templates/list"), _):
            found = await resources.listed(view, request.method, token_id)
            return _listed(view, request, merged(LISTS[request.method], found))
        case "prompts/get", _:
            return await _get_prompt(view, request, asker)
        case "resources/read", _:
            return await _read_resource(view, request, asker)
        case "completion/complete", _:
            return await _complete(view, request, asker)
        case _:
            return _unknown(request)


def _unknown(request: Request) -> Refusal:
    return Refusal(jsonrpc.METHOD_NOT_FOUND, f"the gateway does not serve {request.method!r}")


# -- about the gateway


def _server_info(view: WorkspaceView) -> dict[str, Any]:
    return {"name": "callscope", "title": view.settings.name or view.slug, "version": __version__}


async def _initialize(view: WorkspaceView, request: Request, serves: Serves) -> Raw:
    try:
        requested = jsonrpc.decode_string(request.params.get("protocolVersion", b'""'))
    except jsonrpc.NO_JSON:
        requested = LATEST_HANDSHAKE_VERSION
    declared = await _capabilities(view, serves)
    return jsonrpc.raw(
        {"protocolVersion": negotiate(requested), "capabilities": declared, "serverInfo": _server_info(view)}
    )


async def _discover(view: WorkspaceView, request: Request) -> Raw:
    declared = await _capabilities(view, served(request.era, sessions=False))
    return _listed(view, request, {"supportedVersions": list(MODERN_PROTOCOL_VERSIONS), "capabilities": declared})


async def _capabilities(view: WorkspaceView, serves: Serves) -> dict[str, Any]:
    """The union of what the servers declare; one that was never met, and is not known to be down, is met first."""
    strangers = [s for s in view.servers.values() if s.upstream.declared is None and s.up is not False]
    await asyncio.gather(*(server.catalogue.list() for server in strangers), return_exceptions=True)
    return capabilities.union((capabilities.read_server(s.upstream.declared) for s in view.servers.values()), serves)


# -- lists


def _listed(view: WorkspaceView, request: Request, members: dict[str, Any]) -> Raw:
    """A list as a result; it depends on the token, and is never fresh, so that a change is seen at once."""
    if request.era is Era.LEGACY:
        return jsonrpc.raw(members)
    meta = {**members.pop("_meta", {}), SERVER_INFO_META_KEY: _server_info(view)}
    return jsonrpc.raw({"resultType": "complete", "ttlMs": 0, "cacheScope": "private", **members, "_meta": meta})


async def _list_tools(view: WorkspaceView, request: Request) -> Raw:
    found = await asyncio.gather(*(_tools(server, request.era) for server in view.servers.values()))
    return _listed(view, request, merged("tools", found))


async def _tools(server: Server, era: Era) -> Part:
    try:
        tools = await server.catalogue.list()
        upstream_era = server.upstream.era or era
        return Part(server, [translation.tool(era, upstream_era, tool.listing) for tool in tools.values()])
    except UpstreamError as error:
        return Part(server, error)


def _prefixed(server: Server, item: Raw) -> Raw:
    """A prompt under the gateway's name; what is no prompt stays what it is."""
    try:
        members: dict[str, Any] = jsonrpc.decode_params(item)
        members["name"] = names.join(server.slug, jsonrpc.decode_string(members["name"]))
    except (*jsonrpc.NO_JSON, KeyError):
        return item
    return jsonrpc.raw(members)


# -- of one server


def _info(view: WorkspaceView) -> Raw:
    return jsonrpc.raw(_server_info(view))


async def _get_prompt(view: WorkspaceView, request: Request, asker: Asker) -> Raw | Refusal:
    server, prompt = view.resolve(request.params.get("name", _NULL))
    if server is None:
        return _no_prompt(request.params.get("name", _NULL))
    params = {**request.params, "name": jsonrpc.raw(prompt)}
    return await forward(server, request, asker, params, prompt, _info(view))


def _no_prompt(name: Raw) -> Refusal:
    shown = bytes(name)[:128].decode("utf-8", "replace")
    return Refusal(jsonrpc.INVALID_PARAMS, f"unknown prompt {shown}: prompts/list has the prompts of this workspace")


async def _read_resource(view: WorkspaceView, request: Request, asker: Asker) -> Raw | Refusal:
    try:
        uri = jsonrpc.decode_string(request.params.get("uri", _NULL))
    except jsonrpc.NO_JSON:
        return Refusal(jsonrpc.INVALID_PARAMS, "'params.uri' must be a text: resources/list has the resources")
    code = jsonrpc.INVALID_PARAMS if request.era is Era.MODERN else RESOURCE_NOT_FOUND
    outcome: Raw | Refusal = Refusal(code, f"no server of this workspace has the resource {uri[:256]!r}", {"uri": uri})
    for server in await resources.servers_of(view, uri, asker.token_id):
        outcome = await forward(server, request, asker, request.params, uri, _info(view))
        if not isinstance(outcome, Refusal) or outcome.code not in (jsonrpc.INVALID_PARAMS, RESOURCE_NOT_FOUND):
            break
    return outcome


async def _complete(view: WorkspaceView, request: Request, asker: Asker) -> Raw | Refusal:
    try:
        ref = completion_refs.read(request.params)
    except completion_refs.InvalidReferenceError as error:
        return Refusal(jsonrpc.INVALID_PARAMS, str(error))
    if isinstance(ref, completion_refs.PromptRef):
        name = jsonrpc.raw(ref.name)
        server, prompt = view.resolve(name)
        if server is None:
            return _no_prompt(name)
        return await forward(server, request, asker, completion_refs.renamed(request.params, prompt), None, _info(view))
    servers = await resources.servers_of(view, ref.uri, asker.token_id)
    if not servers:
        return Refusal(jsonrpc.INVALID_PARAMS, f"no server of this workspace has the resource {ref.uri[:256]!r}")
    return await forward(servers[0], request, asker, request.params, None, _info(view))


__all__ = ["Refusal", "answer", "served"]
