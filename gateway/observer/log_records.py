"""A call's OTLP log record: a pure function of its `ToolCall` and of how long its workspace keeps logs."""

from collections.abc import Mapping
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_ERROR, SEVERITY_NUMBER_INFO, LogRecord

from gateway.calls import ToolCall
from gateway.config import Config
from gateway.observer import signals
from gateway.observer.attributes import add_attributes, call_attributes, visible_tool
from gateway.observer.spans import end_ns

EVENT: Final = "tool_call"
"""`mcp.event`, an index label in Loki."""
SHORTEST: Final = "7d"
"""`mcp.retention` of a workspace that is no longer in the configuration."""
_DAYS_OF_A_YEAR: Final = 365
_MAX_MESSAGE: Final = 200
"""Characters of the error message in the body; `error.message` has all of it."""


def retention(days: int | None) -> str:
    """A plan's retention as `mcp.retention` names it: `7d`, `30d`, `90d`, `1y`, …, `unlimited`."""
    if days is None:
        return "unlimited"
    years, rest = divmod(days, _DAYS_OF_A_YEAR)
    return f"{days}d" if rest else f"{years}y"


def retentions(config: Config) -> dict[str, str]:
    """`mcp.retention` by workspace id."""
    return {slug: retention(config.plan_of(workspace).retention_days) for slug, workspace in config.workspaces.items()}


def log_record(call: ToolCall, retention_by_workspace: Mapping[str, str]) -> LogRecord:
    """The record, at the time when the call ended."""
    ended = end_ns(call)
    failed = call.status == "error"
    record = LogRecord(
        time_unix_nano=ended,
        observed_time_unix_nano=ended,
        severity_number=SEVERITY_NUMBER_ERROR if failed else SEVERITY_NUMBER_INFO,
        severity_text="ERROR" if failed else "INFO",
        event_name=signals.TOOL_CALL_EVENT,
        body=AnyValue(string_value=sentence(call)),
        trace_id=bytes.fromhex(call.trace_id),
        span_id=bytes.fromhex(call.span_id),
        flags=call.trace_flags,
    )
    add_attributes(
        {
            **call_attributes(call),
            signals.MCP_EVENT: EVENT,
            signals.MCP_RETENTION: retention_by_workspace.get(call.workspace_id, SHORTEST),
            "token_id": call.token_id,
            "server_slug": call.server_slug,
            "tool_name": call.tool_name,
            "status": call.status,
            "duration_ms": call.duration_ms,
            "gateway_ms": call.gateway_ms,
            "total_ms": call.total_ms,
            "request_bytes": call.request_bytes,
            "response_bytes": call.response_bytes,
            signals.HTTP_RESPONSE_STATUS_CODE: call.http_status,
            signals.ERROR_MESSAGE: call.error_message,
            signals.MCP_UPSTREAM_RESPONSE: call.upstream_response,
        },
        record,
    )
    return record


def sentence(call: ToolCall) -> str:
    """What happened, for a person: `alice called github__create_issue: success in 41.2 ms`."""
    head = f"{call.token_id} called {visible_tool(call)}: "
    if call.error_type is None:
        return f"{head}{call.status} in {call.total_ms:.1f} ms"
    message = " ".join((call.error_message or "").split())
    if len(message) > _MAX_MESSAGE:
        message = f"{message[:_MAX_MESSAGE]}…"
    return f"{head}{call.error_type} after {call.total_ms:.1f} ms{': ' if message else ''}{message}"
