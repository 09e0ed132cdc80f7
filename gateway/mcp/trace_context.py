"""W3C trace context as MCP carries it: in `params._meta` first (SEP-414), in the HTTP header second."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import Raw

from gateway.mcp.jsonrpc import decode_or, decode_string

KEYS: Final = ("traceparent", "tracestate", "baggage")
"""The unprefixed `_meta` keys of SEP-414. `baggage` is not forwarded."""

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")


class SpanContext(NamedTuple):
    """A remote span: ids in lower-case hex, flags as an integer, `tracestate` as it came."""

    trace_id: str
    span_id: str
    flags: int
    tracestate: str | None = None


class Trace(NamedTuple):
    """A call's place in its trace: its own two spans, its parent, and a second context to link."""

    trace_id: str
    span_id: str
    upstream_span_id: str
    flags: int = 1
    tracestate: str | None = None
    parent_span_id: str | None = None
    link: SpanContext | None = None


def parse(traceparent: str, tracestate: str | None = None) -> SpanContext | None:
    """The context of a valid `traceparent`, else None (W3C Trace Context, section 3.2)."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags = match.groups()
    if version == "ff" or not trace_id.strip("0") or not span_id.strip("0"):
        return None
    if version == "00" and len(traceparent) != 55:  # noqa: PLR2004 - the length that version 00 fixes
        return None
    return SpanContext(trace_id, span_id, int(flags, 16), tracestate)


def _text(value: Raw | None) -> str | None:
    return decode_or(decode_string, value, None)


def begin(digits: str, meta: Mapping[str, Raw], header: bytes | None, header_state: bytes | None = None) -> Trace:
    """Join the trace that the client is in, or begin one; the client's sampled flag is kept.

    `digits` are 64 random hex digits, for the trace and the two spans.
    """
    span_id, upstream_span_id = digits[32:48], digits[48:64]
    if header is None and "traceparent" not in meta:
        return Trace(digits[:32], span_id, upstream_span_id)
    state = header_state.decode("latin-1") if header_state is not None else None
    ambient = parse(header.decode("latin-1"), state) if header is not None else None
    in_meta = _text(meta.get("traceparent"))
    parent = parse(in_meta, _text(meta.get("tracestate"))) if in_meta is not None else None
    link = ambient if parent and ambient and ambient[:2] != parent[:2] else None
    parent = parent or ambient
    if parent is None:
        return Trace(digits[:32], span_id, upstream_span_id)
    return Trace(parent.trace_id, span_id, upstream_span_id, parent.flags, parent.tracestate, parent.span_id, link)
