"""A call's OTLP spans: a pure function of its `ToolCall`. They are the waterfall of docs/architecture.md.

Ids are the record's or follow from them, so that a record that is exported twice gives the same spans.
"""

import hashlib
from collections.abc import Iterator
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.calls import PHASES, UPSTREAM_PHASES, ToolCall
from gateway.observer import signals
from gateway.observer.attributes import (
    GATEWAYS_OWN,
    AttributeValue,
    add_attributes,
    call_attributes,
    outcome_attributes,
    owner_attributes,
    visible_tool,
)

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
"""Bits 8 and 9 of a span's flags: whether it is known if its parent is in another process, and whether it is."""
_MASKS: Final = {
    phase: int.from_bytes(hashlib.blake2b(phase.encode(), digest_size=8).digest(), "big") for phase in PHASES
}
"""A phase's span id is its parent's XOR this: different for each phase, the same at each export."""


def spans(call: ToolCall) -> Iterator[Span]:
    """The SERVER span, the CLIENT span if the call went upstream, and a span for each phase that took time.

    Every span lies within its parent's time.
    """
    trace_id = bytes.fromhex(call.trace_id)
    begin, end = call.timestamp_ns, end_ns(call)
    phases = [
        (bar.phase, *_within(begin, end, bar.start_ms, bar.start_ms + bar.duration_ms)) for bar in call.waterfall()
    ]
    yield _server(call, trace_id, end)
    upstream = [(first, last) for phase, first, last in phases if phase in UPSTREAM_PHASES]
    if upstream:
        yield _client(call, trace_id, upstream[0][0], upstream[-1][1])
    elif call.duration_ms > 0:
        before = call.phases.authenticate + call.phases.route
        yield _client(call, trace_id, *_within(begin, end, before, before + call.duration_ms))
    for phase, first, last in phases:
        parent = int(call.upstream_span_id if phase in UPSTREAM_PHASES else call.span_id, 16)
        yield Span(
            trace_id=trace_id,
            span_id=(parent ^ _MASKS[phase]).to_bytes(8, "big"),
            parent_span_id=parent.to_bytes(8, "big"),
            flags=call.trace_flags | _HAS_IS_REMOTE,
            name=phase,
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=first,
            end_time_unix_nano=last,
        )


def end_ns(call: ToolCall) -> int:
    """When the call ended, in nanoseconds since the epoch."""
    return call.timestamp_ns + round(call.total_ms * 1e6)


def _within(begin: int, end: int, first_ms: float, last_ms: float) -> tuple[int, int]:
    """Nanoseconds since the epoch. Phases are rounded one by one, so that their sum could pass the call's end."""
    first = min(begin + round(first_ms * 1e6), end)
    return first, min(begin + round(last_ms * 1e6), end)


def _server(call: ToolCall, trace_id: bytes, end: int) -> Span:
    span = Span(
        trace_id=trace_id,
        span_id=bytes.fromhex(call.span_id),
        flags=call.trace_flags | _HAS_IS_REMOTE,
        name=f"{signals.TOOLS_CALL} {visible_tool(call)}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=call.timestamp_ns,
        end_time_unix_nano=end,
        status=_status(call),
    )
    add_attributes(call_attributes(call), span)
    if call.parent_span_id is not None:
        span.parent_span_id = bytes.fromhex(call.parent_span_id)
        span.flags |= _IS_REMOTE
    if call.link_trace_id is not None and call.link_span_id is not None:
        span.links.add(trace_id=bytes.fromhex(call.link_trace_id), span_id=bytes.fromhex(call.link_span_id))
    return span


def _client(call: ToolCall, trace_id: bytes, begin: int, end: int) -> Span:
    failed = call.error_type is not None and call.error_type not in GATEWAYS_OWN
    attributes: dict[str, AttributeValue] = {
        signals.MCP_METHOD_NAME: signals.TOOLS_CALL,
        signals.GEN_AI_OPERATION_NAME: signals.EXECUTE_TOOL,
        signals.GEN_AI_TOOL_NAME: call.tool_name,
        signals.NETWORK_TRANSPORT: signals.TRANSPORTS[call.transport],
        signals.HTTP_RESPONSE_STATUS_CODE: call.http_status,
        **_server_address(call.upstream_address),
        **(outcome_attributes(call) if failed else {}),
        **owner_attributes(call),
    }
    span = Span(
        trace_id=trace_id,
        span_id=bytes.fromhex(call.upstream_span_id),
        parent_span_id=bytes.fromhex(call.span_id),
        flags=call.trace_flags | _HAS_IS_REMOTE,
        name=f"{signals.TOOLS_CALL} {call.tool_name}",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=begin,
        end_time_unix_nano=end,
        status=_status(call) if failed else None,
    )
    add_attributes(attributes, span)
    return span


def _status(call: ToolCall) -> Status | None:
    if call.error_type is None:
        return None
    return Status(code=Status.STATUS_CODE_ERROR, message=call.error_message or call.error_type.value)


def _server_address(address: str | None) -> dict[str, AttributeValue]:
    if address is None:
        return {}
    host, _, port = address.rpartition(":")
    if not port.isdigit():
        return {signals.SERVER_ADDRESS: address}
    return {signals.SERVER_ADDRESS: host.strip("[]"), signals.SERVER_PORT: int(port)}
