"""Which era a server speaks: what its response to `server/discover` says, and the handshakes of both eras over HTTP.

Source: specification 2026-07-28, basic/versioning "Era detection" and server/discover; 2025-11-25, basic/lifecycle.
"""

from typing import Any, Final

import msgspec
from mcp_types.jsonrpc import (
    HEADER_MISMATCH,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from msgspec import UNSET, Raw, Struct

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc, outbound
from gateway.mcp.revisions import LATEST_MODERN_VERSION, Era
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.http_session import HttpSession, LegacyHttpSession
from gateway.upstream.http_transport import HttpTransport

MODERN_CODES: Final = frozenset({MISSING_REQUIRED_CLIENT_CAPABILITY, HEADER_MISMATCH})
"""JSON-RPC codes that only a modern server gives, one that accepts the protocol version of the request."""
_KNOWN_VERSIONS: Final = frozenset({*MODERN_PROTOCOL_VERSIONS, *HANDSHAKE_PROTOCOL_VERSIONS})
_SHOWN_VERSIONS: Final = 8


class _UnsupportedData(Struct, frozen=True):
    supported: list[str] = []


class _UnsupportedVersion(Struct, frozen=True):
    data: _UnsupportedData = _UnsupportedData()


_decode_unsupported: Final = msgspec.json.Decoder(_UnsupportedVersion).decode


def names_modern_version(reply: UpstreamResponse) -> bool:
    """Whether a response to `server/discover` proves the modern era; every other response speaks for the legacy one.

    Raises:
        UpstreamError: it names protocol versions, but none that the gateway speaks.
    """
    if reply.error is not UNSET:
        versions = _supported_in(reply.error) if jsonrpc.code_of(reply.error) == UNSUPPORTED_PROTOCOL_VERSION else []
    else:
        versions = outbound.supported_versions(reply.result) if reply.result is not UNSET else []
    if versions and not _KNOWN_VERSIONS.intersection(versions):
        theirs = ", ".join(version[:16] for version in versions[:_SHOWN_VERSIONS])
        ours = ", ".join(sorted(_KNOWN_VERSIONS))
        raise UpstreamError(
            ErrorType.UPSTREAM_PROTOCOL_ERROR,
            f"speaks MCP {theirs}, and the gateway speaks {ours}: they have no version in common",
        )
    return not set(versions).isdisjoint(MODERN_PROTOCOL_VERSIONS)


def _supported_in(error: Raw) -> list[str]:
    try:
        return _decode_unsupported(error).data.supported
    except jsonrpc.DECODE_ERRORS:
        return []


def declared_in(reply: UpstreamResponse) -> Raw:
    """The `capabilities` of a `server/discover` or `initialize` result; `{}` if it has none."""
    try:
        members = jsonrpc.decode_params(reply.result) if reply.result is not UNSET else {}
    except jsonrpc.DECODE_ERRORS:
        members = {}
    return members.get("capabilities", jsonrpc.EMPTY_OBJECT)


def not_a_server(reply: UpstreamResponse, where: str, http_status: int | None = None) -> UpstreamError:
    """The error for a peer that takes neither handshake; `where` is what of the configuration leads to it."""
    return UpstreamError(
        ErrorType.UPSTREAM_PROTOCOL_ERROR,
        f"answered neither server/discover nor initialize with a result: is this the {where} of an MCP server?",
        http_status=http_status,
        response=bytes(reply.error) if reply.error is not UNSET else None,
    )


async def discover(transport: HttpTransport) -> HttpSession | None:
    """Probe for the modern era; None is the verdict `legacy`. A server that cannot be reached gets no verdict.

    Raises:
        UpstreamError: it cannot be reached, or speaks no version that the gateway speaks.
    """
    head = transport.base_head + b"mcp-protocol-version: %b\r\n" % LATEST_MODERN_VERSION.encode()
    session = HttpSession(Era.MODERN, head)
    try:
        reply, _ = await transport.attempt(session, UpstreamRequest("server/discover", {}, repeatable=True))
    except UpstreamError as error:
        if error.http_status is None:
            raise
        return None
    session.declared = declared_in(reply)
    if reply.error is not UNSET and jsonrpc.code_of(reply.error) in MODERN_CODES:
        return session
    return session if names_modern_version(reply) else None


async def initialize(transport: HttpTransport, client_capabilities: Raw) -> LegacyHttpSession:
    """The legacy handshake.

    Raises:
        UpstreamError: it did not come to a session.
    """
    opening = HttpSession(Era.LEGACY, transport.base_head)
    params: dict[str, Any] = {**outbound.INITIALIZE_PARAMS, "capabilities": client_capabilities}
    reply, response = await transport.attempt(opening, UpstreamRequest("initialize", params, repeatable=True))
    if reply.result is UNSET:
        raise not_a_server(reply, "URL", response.status)
    head = transport.base_head
    version = outbound.negotiated_version(reply.result)
    if version in HANDSHAKE_PROTOCOL_VERSIONS:
        head += b"mcp-protocol-version: %b\r\n" % version.encode()
    session_id = response.headers.get(b"mcp-session-id")
    if session_id is not None:
        head += b"mcp-session-id: %b\r\n" % session_id
    session = LegacyHttpSession(head, session_id, declared_in(reply), transport.post_soon)
    await transport.post(session, jsonrpc.notification("notifications/initialized"))
    return session
