"""Requests to an upstream, by its era: `params` with `_meta`, and headers.

Source: specification 2026-07-28, basic/index "_meta" and streamable-http "Standard headers"; 2025-11-25, lifecycle.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from mcp.shared.inbound import NAME_BEARING_METHODS, encode_header_value
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from msgspec import Raw, Struct

from gateway import __version__
from gateway.mcp.jsonrpc import EMPTY_OBJECT, Params, decode_or, raw
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION, Era
from gateway.mcp.trace_context import KEYS

CLIENT_INFO: Final = {"name": "callscope", "version": __version__}
_MAX_TRACESTATE: Final = 512
"""What everyone has to pass on (W3C Trace Context, section 3.3.1.5); a longer header may cost a call its answer."""
_TRACE_KEYS: Final = frozenset(KEYS)
_PLAIN_MEMBERS: Final = 3
PROTOCOL_META_PREFIX: Final = "io.modelcontextprotocol/"

_MODERN_META: Final[Params] = {
    PROTOCOL_VERSION_META_KEY: raw(LATEST_MODERN_VERSION),
    CLIENT_CAPABILITIES_META_KEY: EMPTY_OBJECT,
    CLIENT_INFO_META_KEY: raw(CLIENT_INFO),
}

INITIALIZE_PARAMS: Final[Params] = {
    "protocolVersion": raw(LATEST_HANDSHAKE_VERSION),
    "capabilities": EMPTY_OBJECT,
    "clientInfo": raw(CLIENT_INFO),
}


def params(
    era: Era,
    values: Mapping[str, Any],
    client_meta: Mapping[str, Raw],
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> dict[str, Any]:
    """A request's `params` for an upstream of `era`; everything but `_meta` stays as it is.

    `_meta` is the client's, with the context of the CLIENT span. A modern client's protocol members are passed on to a
    modern upstream; a legacy client's call gets those of the gateway; a legacy upstream gets none.
    """
    meta: dict[str, Any] = dict(client_meta)
    for key in KEYS:
        meta.pop(key, None)
    if era is Era.LEGACY:
        meta = {key: value for key, value in meta.items() if not key.startswith(PROTOCOL_META_PREFIX)}
    elif PROTOCOL_VERSION_META_KEY not in meta:
        meta = {**_MODERN_META, **meta}
    if traceparent is not None:
        meta["traceparent"] = traceparent
        if tracestate:
            meta["tracestate"] = tracestate
    translated: dict[str, Any] = dict(values)
    if meta:
        translated["_meta"] = meta
    else:
        translated.pop("_meta", None)
    return translated


def call(request_id: int, values: Mapping[str, Any], client_meta: Mapping[str, Raw], traceparent: str) -> bytes | None:
    """A `tools/call` for a modern upstream as its modern client wrote it, `_meta` included, with our id and span.

    None if it has anything beside `name`, `arguments` and an `_meta` of which nothing is to be replaced.
    """
    name, arguments, meta = values.get("name"), values.get("arguments"), values.get("_meta")
    if len(values) != _PLAIN_MEMBERS or type(name) is not Raw or arguments is None or meta is None:
        return None
    if PROTOCOL_VERSION_META_KEY not in client_meta or not _TRACE_KEYS.isdisjoint(client_meta):
        return None
    return (
        b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":'
        b'{"name":%b,"arguments":%b,"_meta":{"traceparent":"%b",%b}}'
        % (request_id, name, arguments, traceparent.encode(), bytes(meta)[1:])
    )


def headers(era: Era, method: str, name: str | None) -> bytes:
    """The header lines that tell a modern upstream what the body is (SEP-2243); none for a legacy one."""
    if era is Era.LEGACY:
        return b""
    lines = b"mcp-method: %b\r\n" % method.encode()
    if name is not None and method in NAME_BEARING_METHODS:
        lines += b"mcp-name: %b\r\n" % encode_header_value(name).encode()
    return lines


def trace_headers(traceparent: str | None, tracestate: str | None) -> bytes:
    """The HTTP carrier of the CLIENT span's context, beside `_meta`."""
    if traceparent is None:
        return b""
    lines = b"traceparent: %b\r\n" % traceparent.encode()
    if tracestate and len(tracestate) <= _MAX_TRACESTATE and tracestate.isascii() and tracestate.isprintable():
        lines += b"tracestate: %b\r\n" % tracestate.encode()
    return lines


class _Versions(Struct):
    supportedVersions: list[str] = []  # noqa: N815 - the member's name in MCP
    protocolVersion: str | None = None  # noqa: N815 - the member's name in MCP


_decode_versions: Final = msgspec.json.Decoder(_Versions).decode
_NO_VERSIONS: Final = _Versions()


def supported_versions(discover_result: Raw) -> list[str]:
    """The versions that a `server/discover` result names; none if the result is malformed."""
    return decode_or(_decode_versions, discover_result, _NO_VERSIONS).supportedVersions


def negotiated_version(initialize_result: Raw) -> str | None:
    """The revision that an `initialize` result settles; None if the result is malformed."""
    return decode_or(_decode_versions, initialize_result, _NO_VERSIONS).protocolVersion
