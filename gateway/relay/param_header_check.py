"""Arguments of a call that stand in `Mcp-Param-*` headers as well: checked on the way in, sent on the way out (M9).

Source: specification 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters" (SEP-2243).
"""

from typing import Final

from mcp_types.jsonrpc import HEADER_MISMATCH
from msgspec import UNSET

from gateway.errors import CallscopeError
from gateway.mcp import jsonrpc
from gateway.mcp.param_headers import ParamHeaders, UnreadableArgumentsError, forwarded
from gateway.mcp.revisions import Era
from gateway.relay.active_call import Call
from gateway.upstream.base import UpstreamResponse

_USUAL: Final = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-length",
        b"content-type",
        b"host",
        b"mcp-method",
        b"mcp-name",
        b"mcp-protocol-version",
        b"mcp-session-id",
        b"origin",
        b"sec-fetch-mode",
        b"traceparent",
        b"tracestate",
        b"user-agent",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    }
)
"""Whoever sends these alone sends no mirrored argument: one look, for nearly every call."""


class ParamHeaderError(CallscopeError):
    """A call whose headers and arguments disagree, or whose arguments cannot be read: `code` is for its client."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def lines(call: Call, known: ParamHeaders | None) -> bytes:
    """The header lines for the upstream: those of the tool's arguments, and what else the client sent of the kind.

    Raises:
        ParamHeaderError: -32020, or -32602 for arguments that cannot be read.
    """
    if known is None:
        return b"" if _USUAL.issuperset(call.headers) else forwarded(list(call.headers.items()), None)
    arguments = call.request.params.get("arguments")
    written = list(call.headers.items())
    try:
        wrong = known.mismatch(arguments, written) if call.request.era is Era.MODERN else None
        if wrong is None:
            return known.lines(arguments) + forwarded(written, known)
    except UnreadableArgumentsError as error:
        raise ParamHeaderError(str(error), jsonrpc.INVALID_PARAMS) from error
    raise ParamHeaderError(wrong, HEADER_MISMATCH)


def is_mismatch(reply: UpstreamResponse) -> bool:
    """Whether an upstream says that the headers disagree with the body: perhaps its tool has changed."""
    try:
        return reply.error is not UNSET and jsonrpc.decode_error(reply.error).code == HEADER_MISMATCH
    except jsonrpc.NO_JSON:
        return False
