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
from gateway.mcp import capabilities, era_bridge, jsonrpc
from gateway.mcp.capabilities import Serves
from gateway.mcp.inbound import Request
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, Era, negotiate
from gateway.relay import completion, prompts, resources
from gateway.relay.aggregation import Offers, Part, may_offer, merged
from gateway.relay.forwarding import Caller, Refusal
from gateway.relay.registry import Server, WorkspaceView
from gateway.relay.resources import LISTS
from gateway.relay.subscription_registry import meet
from gateway.upstream.base import Client, Notify, UpstreamError

_NULL: Final = Raw(b"null")
_PAGED: Final = frozenset({"tools/list", "prompts/list", *LISTS})


_OFFERED: Final[dict[str, Offers]] = {
    **dict.fromkeys(("prompts/list", "prompts/get"), prompts.offers),
    **dict.fromkeys((*LISTS, "resources/read"), resources.offers),
    "completion/complete": completion.offers,
}
"""What at least one server must have, for the method to be one of the workspace's."""

METHODS: Final = frozenset(
    {
        *("initialize", "ping", "server/discover", "tools/list", "logging/setLevel"),
        *("resources/subscribe", "resources/unsubscribe", *_OFFERED),
    }
)
"""All that is served and no tool call: what else a client may write for a method is no label."""


def served(era: Era, *, sessions: bool) -> Serves:
    """What the gateway serves to a client of this era, beside tools."""
    streams = sessions or era is Era.MODERN
    return Serves(logging=era is Era.LEGACY and sessions, changes=streams, subscriptions=streams)


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
    caller = Caller(token_id, client, notify)
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
            return _listed(view, request, await prompts.listed(view, token_id))
        case (("resources/list" | "resources/templates/list"), _):
            found = await resources.listed(view, request.method, token_id)
            return _listed(view, request, merged(LISTS[request.method], found))
        case "prompts/get", _:
            return await prompts.get(view, request, caller, jsonrpc.raw(_server_info(view)))
        case "resources/read", _:
            return await resources.read(view, request, caller, jsonrpc.raw(_server_info(view)))
        case "completion/complete", _:
            return await completion.complete(view, request, caller, jsonrpc.raw(_server_info(view)))
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
    await meet(view)
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
        tools = await server.catalog.list()
        upstream_era = server.upstream.era or era
        return Part(server, [era_bridge.tool(era, upstream_era, tool.listing) for tool in tools.values()])
    except UpstreamError as error:
        return Part(server, error)


__all__ = ["Refusal", "answer", "served"]
