"""A call as JSON: one shape for the API's pages, the API's detail and the live stream."""

from typing import Any

from gateway.analytics.periods import rfc3339
from gateway.calls import ToolCall


def view(call: ToolCall) -> dict[str, Any]:
    """A call as one element of a list."""
    return {
        "call_id": call.call_id,
        "timestamp": rfc3339(call.timestamp_ns),
        "workspace_id": call.workspace_id,
        "token_id": call.token_id,
        "server_slug": call.server_slug,
        "tool_name": call.tool_name,
        "status": call.status,
        "error_type": call.error_type,
        "error_message": call.error_message,
        "upstream_response": call.upstream_response,
        "duration_ms": call.duration_ms,
        "total_ms": call.total_ms,
        "gateway_ms": call.gateway_ms,
        "request_bytes": call.request_bytes,
        "response_bytes": call.response_bytes,
        "jsonrpc_code": call.jsonrpc_code,
        "http_status": call.http_status,
        "transport": call.transport,
        "protocol_version": call.protocol_version,
        "client": None if call.client_name is None else {"name": call.client_name, "version": call.client_version},
        "trace_id": call.trace_id,
        "span_id": call.span_id,
    }


def detail(call: ToolCall) -> dict[str, Any]:
    """A call with all that is known of it: the list's shape, and the waterfall."""
    return {
        **view(call),
        "phases": [phase._asdict() for phase in call.waterfall()],
        "upstream_address": call.upstream_address,
        "upstream_span_id": call.upstream_span_id,
        "parent_span_id": call.parent_span_id,
        "session_id": call.session_id,
        "jsonrpc_id": call.jsonrpc_id,
        "replica": call.replica,
    }
