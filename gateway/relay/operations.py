"""Everything that a client may ask beside `tools/call`, answered by the gateway itself.

Source: specification 2026-07-28, server/discover, server/tools and server/utilities/caching; 2025-11-25, lifecycle.
"""

import asyncio
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from mcp_types import SERVER_INFO_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import Raw

from gateway import __version__
from gateway.mcp import jsonrpc
from gateway.mcp.inbound import Request
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, Era, negotiate
from gateway.relay.upstream.seam import UpstreamError
from gateway.relay.workspaces import Server, WorkspaceView

UNAVAILABLE_META_KEY: Final = "callscope/unavailable"
"""In the `_meta` of a `tools/list` result: the servers whose tools are missing from it, and why."""
_NULL: Final = Raw(b"null")
CAPABILITIES: Final[dict[str, Any]] = {"tools": {}}


class Refusal(NamedTuple):
    """A JSON-RPC error for the client."""

    code: int
    message: str


async def answer(view: WorkspaceView, request: Request) -> Raw | Refusal:
    """The result of a request that is no tool call."""
    match request.method, request.era:
        case "initialize", Era.LEGACY:
            return _initialize(view, request)
        case "ping", Era.LEGACY:
            return jsonrpc.EMPTY_OBJECT
        case "server/discover", Era.MODERN:
            return _discover(view)
        case "tools/list", _:
            return await _list_tools(view, request)
        case _:
            return Refusal(jsonrpc.METHOD_NOT_FOUND, f"the gateway does not serve {request.method!r}")


def _server_info(view: WorkspaceView) -> dict[str, Any]:
    return {"name": "callscope", "title": view.settings.name or view.slug, "version": __version__}


def _initialize(view: WorkspaceView, request: Request) -> Raw:
    try:
        requested = jsonrpc.decode_string(request.params.get("protocolVersion", b'""'))
    except jsonrpc.NO_JSON:
        requested = LATEST_HANDSHAKE_VERSION
    return jsonrpc.raw(
        {"protocolVersion": negotiate(requested), "capabilities": CAPABILITIES, "serverInfo": _server_info(view)}
    )


def _modern(view: WorkspaceView, members: dict[str, Any], *, ttl_ms: int) -> dict[str, Any]:
    """What every complete, cacheable result of the modern era has; lists depend on the token: never shared."""
    meta = {**members.pop("_meta", {}), SERVER_INFO_META_KEY: _server_info(view)}
    return {"resultType": "complete", "ttlMs": ttl_ms, "cacheScope": "private", **members, "_meta": meta}


def _discover(view: WorkspaceView) -> Raw:
    members = {"supportedVersions": list(MODERN_PROTOCOL_VERSIONS), "capabilities": CAPABILITIES}
    return jsonrpc.raw(_modern(view, members, ttl_ms=0))


async def _list_tools(view: WorkspaceView, request: Request) -> Raw | Refusal:
    """Ask all servers at once and merge, in the file's order; one that fails is named, the others' tools stand."""
    if request.params.get("cursor", _NULL) != _NULL:
        return Refusal(jsonrpc.INVALID_PARAMS, "no such cursor: tools/list answers with one page")
    servers = list(view.servers.values())
    listings = await asyncio.gather(*(_listing(server) for server in servers))
    tools: list[Raw] = []
    unavailable = []
    for server, listing in zip(servers, listings, strict=True):
        if isinstance(listing, UpstreamError):
            unavailable.append({"server": server.slug, "error_type": listing.error_type.value, "message": str(listing)})
        else:
            tools.extend(listing)
    members: dict[str, Any] = {"tools": tools}
    if unavailable:
        members["_meta"] = {UNAVAILABLE_META_KEY: unavailable}
    return jsonrpc.raw(_modern(view, members, ttl_ms=0) if request.era is Era.MODERN else members)


async def _listing(server: Server) -> Iterable[Raw] | UpstreamError:
    try:
        tools = await server.catalogue.list()
    except UpstreamError as error:
        return error
    return [tool.listing for tool in tools.values()]
