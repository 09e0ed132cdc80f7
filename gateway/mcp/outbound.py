"""What an upstream is sent, by its era: `_meta`, headers, and how its answer becomes the client's.

Source: specification 2026-07-28, basic/index "_meta" and streamable-http "Standard headers"; 2025-11-25, lifecycle.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from mcp.shared.inbound import NAME_BEARING_METHODS, encode_header_value
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from msgspec import Raw, Struct

from gateway import __version__
from gateway.mcp.jsonrpc import EMPTY_OBJECT, Params, encode, raw
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, LATEST_MODERN_VERSION, Era
from gateway.mcp.trace_context import KEYS

CLIENT_INFO: Final = {"name": "callscope", "version": __version__}
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


def meta(era: Era, client_meta: Mapping[str, Raw], traceparent: str | None, tracestate: str | None) -> Params:
    """The `_meta` for an upstream of `era`: the client's, translated, with the CLIENT span's context.

    A modern client's own envelope goes on to a modern upstream; a legacy client's call gets one of the gateway's.
    """
    values = {key: value for key, value in client_meta.items() if key not in KEYS}
    if era is Era.LEGACY:
        values = {key: value for key, value in values.items() if not key.startswith(PROTOCOL_META_PREFIX)}
    elif PROTOCOL_VERSION_META_KEY not in values:
        values = {**_MODERN_META, **values}
    if traceparent is not None:
        values["traceparent"] = Raw(b'"%b"' % traceparent.encode())
        if tracestate:
            values["tracestate"] = raw(tracestate)
    return values


def params(
    era: Era,
    values: Params,
    client_meta: Mapping[str, Raw],
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> Params:
    """A request's `params` for an upstream of `era`; everything but `_meta` stays as it is."""
    upstream_meta = meta(era, client_meta, traceparent, tracestate)
    if not upstream_meta:
        return {key: value for key, value in values.items() if key != "_meta"}
    return {**values, "_meta": Raw(encode(upstream_meta))}


def headers(
    era: Era,
    method: str,
    name: str | None,
    traceparent: str | None = None,
    tracestate: str | None = None,
) -> bytes:
    """The header lines of one request, beside those that are the same for every request to an upstream."""
    lines = b""
    if era is Era.MODERN:
        lines = b"mcp-method: %b\r\n" % method.encode()
        if name is not None and method in NAME_BEARING_METHODS:
            lines += b"mcp-name: %b\r\n" % encode_header_value(name).encode()
    if traceparent is not None:
        lines += b"traceparent: %b\r\n" % traceparent.encode()
        if tracestate and tracestate.isascii() and tracestate.isprintable():
            lines += b"tracestate: %b\r\n" % tracestate.encode()
    return lines


def result(client_era: Era, upstream_era: Era, value: Raw) -> Raw:
    """An upstream's result for a client of the other era; between peers of one era the bytes are the same.

    A modern result says what kind it is: a legacy upstream's is always `complete`.
    """
    if client_era is Era.LEGACY or upstream_era is Era.MODERN:
        return value
    body = bytes(value).lstrip()
    if not body.startswith(b"{") or b'"resultType"' in body:
        return value
    rest = body[1:].lstrip()
    return Raw(b'{"resultType":"complete"' + (b"" if rest.startswith(b"}") else b",") + rest)


class _Discovered(Struct):
    supportedVersions: list[str] = []  # noqa: N815 - the member's name in MCP


class _Initialized(Struct):
    protocolVersion: str | None = None  # noqa: N815 - the member's name in MCP


def supported_versions(discover_result: Raw) -> list[str]:
    """The versions that a `server/discover` result names; none if it is not one."""
    try:
        return msgspec.json.decode(discover_result, type=_Discovered).supportedVersions
    except msgspec.MsgspecError:
        return []


def negotiated_version(initialize_result: Raw) -> str | None:
    """The revision that an `initialize` result settles; None if it is not one."""
    try:
        return msgspec.json.decode(initialize_result, type=_Initialized).protocolVersion
    except msgspec.MsgspecError:
        return None
