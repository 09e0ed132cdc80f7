"""What a request tells its upstream of the client, and which log messages of the upstream that client wants.

Source: specification 2026-07-28, basic/index "Per-request protocol fields", server/utilities/logging; 2025-11-25,
server/utilities/logging.
"""

from collections.abc import Mapping
from typing import Final

from mcp_types import CLIENT_CAPABILITIES_META_KEY, LOG_LEVEL_META_KEY, PROTOCOL_VERSION_META_KEY
from msgspec import Raw

from gateway.mcp import capabilities, jsonrpc, log_levels
from gateway.mcp.jsonrpc import Params
from gateway.mcp.revisions import Era
from gateway.upstream.base import Client, UpstreamRequest

_OF_MODERN: Final = frozenset({CLIENT_CAPABILITIES_META_KEY, LOG_LEVEL_META_KEY})


def meta(era: Era, request: UpstreamRequest) -> Mapping[str, Raw]:
    """The client's `_meta` for an upstream of `era`; what a legacy client declared once is said on each request."""
    if era is Era.LEGACY or PROTOCOL_VERSION_META_KEY in request.meta:
        return request.meta
    client = request.client
    if client is None and _OF_MODERN.isdisjoint(request.meta):
        return request.meta
    said: Params = {name: value for name, value in request.meta.items() if name not in _OF_MODERN}
    if client is not None:
        can = capabilities.for_upstream(client.capabilities, Era.LEGACY, Era.MODERN, bridged=True)
        said = log_levels.with_level({**said, CLIENT_CAPABILITIES_META_KEY: can}, client.log_level)
    return said


def askable(client: Client | None) -> Raw:
    """What a legacy server is told in `initialize` that this client can be asked."""
    if client is None:
        return jsonrpc.EMPTY_OBJECT
    return capabilities.for_upstream(client.capabilities, Era.LEGACY, Era.LEGACY, bridged=True)


def log_level(request: UpstreamRequest) -> str | None:
    """The least severe log messages that the request's client wants; None: it did not say."""
    if request.client is not None:
        return request.client.log_level
    try:
        return log_levels.requested(dict(request.meta))
    except log_levels.InvalidLevelError:
        return None


def wants(request: UpstreamRequest, method: str, params: Params) -> bool:
    """Whether a legacy server's notification goes on to the request's client.

    A modern client gets the log messages that the request asks for; of a legacy client that nothing is known of, the
    server decides.
    """
    if method != log_levels.METHOD or (request.client is None and PROTOCOL_VERSION_META_KEY not in request.meta):
        return True
    return log_levels.passes(params, log_level(request))
