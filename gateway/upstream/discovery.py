"""Which era a server over HTTP speaks, and how a session with a legacy one begins.

Source: specification 2026-07-28, basic/versioning "Era detection"; 2025-11-25, basic/lifecycle.
"""

from typing import Any, Final

from mcp_types.jsonrpc import HEADER_MISMATCH, MISSING_REQUIRED_CLIENT_CAPABILITY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc, outbound
from gateway.mcp.revisions import LATEST_MODERN_VERSION, Era
from gateway.upstream.base import UpstreamError, UpstreamRequest
from gateway.upstream.http_response import code_of
from gateway.upstream.http_session import HttpSession, LegacyHttpSession, declared_in
from gateway.upstream.http_transport import HttpTransport
from gateway.upstream.supported_versions import common_versions

MODERN_CODES: Final = frozenset({MISSING_REQUIRED_CLIENT_CAPABILITY, HEADER_MISMATCH})
"""JSON-RPC codes that only a modern server answers, one that takes the version of the question."""


async def discover(transport: HttpTransport) -> HttpSession | None:
    """Probe for the modern era; None is the verdict `legacy`. A server that cannot be reached has none.

    Raises:
        UpstreamError: it cannot be reached, or it speaks no revision that the gateway does.
    """
    head = transport.base_head + b"mcp-protocol-version: %b\r\n" % LATEST_MODERN_VERSION.encode()
    modern = HttpSession(Era.MODERN, head)
    try:
        reply, _ = await transport.attempt(modern, UpstreamRequest("server/discover", {}, repeatable=True))
    except UpstreamError as error:
        if error.http_status is None:
            raise
        return None
    modern.declared = declared_in(reply.result) if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT
    if reply.error is not UNSET and code_of(reply.error) in MODERN_CODES:
        return modern
    return modern if set(common_versions(reply)) & set(MODERN_PROTOCOL_VERSIONS) else None


async def initialize(transport: HttpTransport, askable: Raw) -> LegacyHttpSession:
    """The legacy handshake; `askable` is what the session's clients can be asked.

    Raises:
        UpstreamError: it did not come to a session.
    """
    opening = HttpSession(Era.LEGACY, transport.base_head)
    params: dict[str, Any] = {**outbound.INITIALIZE_PARAMS, "capabilities": askable}
    reply, response = await transport.attempt(opening, UpstreamRequest("initialize", params, repeatable=True))
    if reply.result is UNSET or reply.error is not UNSET:
        refusal = bytes(reply.error) if reply.error is not UNSET else b""
        raise UpstreamError(
            ErrorType.UPSTREAM_PROTOCOL_ERROR,
            "answered neither server/discover nor initialize with a result: is this the URL of an MCP server?",
            http_status=response.status,
            response=refusal,
        )
    head = transport.base_head
    version = outbound.negotiated_version(reply.result)
    if version in HANDSHAKE_PROTOCOL_VERSIONS:
        head += b"mcp-protocol-version: %b\r\n" % version.encode()
    session_id = response.headers.get(b"mcp-session-id")
    if session_id is not None:
        head += b"mcp-session-id: %b\r\n" % session_id
    session = LegacyHttpSession(head, session_id, declared_in(reply.result), transport.post_soon)
    await transport.post(session, jsonrpc.notification("notifications/initialized"))
    return session
