"""Arguments that a tool mirrors into HTTP headers: `x-mcp-header` in its schema, `Mcp-Param-*` on the wire (SEP-2243).

Compiled once a listing. A tool without such a header, and that is nearly every one, compiles to None.

Source: specification 2026-07-28, basic/transports/streamable-http, "Custom Headers from Tool Parameters".
"""

from typing import Any, Final

import msgspec
from mcp.shared.inbound import (
    MCP_PARAM_HEADER_PREFIX,
    X_MCP_HEADER_KEY,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)
from mcp_types.jsonrpc import HEADER_MISMATCH
from msgspec import Raw

from gateway.errors import CallscopeError
from gateway.mcp.inbound import Headers, Lines
from gateway.mcp.jsonrpc import DECODE_ERRORS, INVALID_PARAMS
from gateway.mcp.revisions import Era

_KEY: Final = X_MCP_HEADER_KEY.encode()
_PREFIX: Final = MCP_PARAM_HEADER_PREFIX.lower().encode()
_decode: Final = msgspec.json.Decoder().decode


class InvalidParamHeaderError(CallscopeError):
    """A tool's `x-mcp-header` is invalid: over HTTP such a tool must not be listed. The reason is logged."""


class ParamHeaderError(CallscopeError):
    """A call whose headers contradict its arguments (-32020), or whose arguments cannot be decoded (-32602)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class ParamHeaders:
    """The arguments of one tool that are sent as headers too."""

    __slots__ = ("_map", "_schema", "names")

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._map = x_mcp_header_map(schema)
        self.names = frozenset(_PREFIX + token.lower().encode() for token in self._map.values())

    def lines(self, arguments: Raw | None, received: Lines, client_era: Era) -> bytes:
        """The header lines of a call to a modern upstream; `null` and an absent argument have none.

        `received` are the client's headers as they came, names in lower case.

        Raises:
            ParamHeaderError: a modern client's headers contradict its arguments, or the arguments cannot be decoded.
        """
        decoded = _decode_arguments(arguments)
        if client_era is Era.MODERN:
            mine: dict[str, str] = {}
            for name, value in received:
                if name in self.names and name.decode() in mine:
                    raise ParamHeaderError(f"the header {name.decode()} is sent more than once", HEADER_MISMATCH)
                if name in self.names:
                    mine[name.decode()] = value.decode("latin-1")
            rejection = validate_mcp_param_headers(self._schema, decoded, mine)
            if rejection is not None:
                raise ParamHeaderError(rejection.message, HEADER_MISMATCH)
        headers = mcp_param_headers(self._map, decoded)
        return b"".join(f"{name.lower()}: {value}\r\n".encode() for name, value in headers.items())


def compile_schema(input_schema: Raw) -> ParamHeaders | None:
    """The mirrored arguments of a tool by its `inputSchema`; None if there are none.

    Raises:
        InvalidParamHeaderError: the schema names a header that may not be, or not there.
    """
    written = bytes(input_schema)
    if _KEY not in written and b"\\u" not in written:
        return None
    try:
        schema = _decode(written)
    except DECODE_ERRORS as error:
        raise InvalidParamHeaderError(f"the inputSchema is no JSON that can be decoded: {error}") from error
    reason = find_invalid_x_mcp_header(schema)
    if reason is not None:
        raise InvalidParamHeaderError(reason)
    return ParamHeaders(schema) if x_mcp_header_map(schema) else None


def upstream_lines(mirrored: ParamHeaders | None, headers: Headers, arguments: Raw | None, client_era: Era) -> bytes:
    """The `Mcp-Param-*` lines of a call: those of the tool's arguments, and all others that the client sent.

    A modern client has to send the former itself; an intermediary passes on the latter (`Mcp-Param-*` in SEP-2243).

    Raises:
        ParamHeaderError: a modern client's headers contradict its arguments, or the arguments cannot be decoded.
    """
    if mirrored is None and _PREFIX not in b"\n".join(headers):  # one search instead of one for each header
        return b""
    received = list(headers.items())
    own = mirrored.lines(arguments, received, client_era) if mirrored is not None else b""
    names = mirrored.names if mirrored is not None else ()
    others = (line for line in received if line[0].startswith(_PREFIX) and line[0] not in names)
    return own + b"".join(b"%b: %b\r\n" % line for line in others)


def _decode_arguments(arguments: Raw | None) -> dict[str, Any]:
    """The decoded arguments; empty if they are not an object."""
    if arguments is None:
        return {}
    try:
        decoded = _decode(arguments)
    except DECODE_ERRORS as error:
        raise ParamHeaderError(f"the arguments cannot be decoded: {error}", INVALID_PARAMS) from error
    return decoded if isinstance(decoded, dict) else {}
