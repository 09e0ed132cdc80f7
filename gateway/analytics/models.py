"""The API's answers: what is served, what its OpenAPI schemas say, and what the terminal decodes.

A docstring here is the description in the OpenAPI document. Only msgspec and the standard library are imported, so
that every command can use these models.
"""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, Self

from msgspec import UNSET, Meta, Struct, UnsetType, field

from gateway.analytics.periods import rfc3339
from gateway.calls import PHASES, Dimension, ErrorType, Status, ToolCall

Count = Annotated[int, Meta(ge=0)]
Milliseconds = Annotated[float, Meta(ge=0)]
Rate = Annotated[float, Meta(ge=0, le=1)]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
"""RFC 3339 in UTC, with milliseconds."""
Date = Annotated[str, Meta(extra_json_schema={"format": "date"})]


class Durations(Struct, frozen=True, kw_only=True):
    """Milliseconds that the upstreams took; null if there were no calls."""

    avg: Milliseconds | None
    p50: Milliseconds | None
    p95: Milliseconds | None
    p99: Milliseconds | None


class CallCounts(Struct, frozen=True, kw_only=True):
    """Calls of the range, of today, of this week and of this month."""

    range: Count
    today: Count
    week: Count
    month: Count


class ErrorCount(Struct, frozen=True, kw_only=True):
    """How many calls failed with one error type."""

    error_type: ErrorType
    calls: Count


class Overview(Struct, frozen=True, kw_only=True):
    """The range's totals, and the calls of today, this week and this month."""

    calls: CallCounts
    success_rate: Rate | None
    active_tokens: Count
    errors: Count
    duration_ms: Durations
    errors_by_type: list[ErrorCount]


class ToolCount(Struct, frozen=True, kw_only=True):
    """How often one tool was called."""

    server_slug: str
    tool_name: str
    calls: Count


class ToolStats(ToolCount, frozen=True, kw_only=True):
    """The calls of one tool."""

    errors: Count
    error_rate: Rate | None
    duration_ms: Durations
    last_called_at: Time | None


class MemberStats(Struct, frozen=True, kw_only=True):
    """The calls of one member or bot; name and kind are null if its token is not configured any more."""

    token_id: str
    token_name: str | None
    kind: Literal["member", "bot"] | None
    calls: Count
    errors: Count
    error_rate: Rate | None
    duration_ms: Durations
    last_called_at: Time | None
    top_tools: list[ToolCount]


class ServerStats(Struct, frozen=True, kw_only=True):
    """The calls of one server, and whether it is up; null if that is unknown."""

    server_slug: str
    calls: Count
    errors: Count
    error_rate: Rate | None
    duration_ms: Durations
    up: bool | None


class PlanUsage(Struct, frozen=True, kw_only=True):
    """Calls of the calendar month (UTC) against the plan's limit; null means no limit."""

    used: Count
    limit: Count | None
    remaining: Count | None
    projected: Count
    exhausted_on: Date | None


class MeteredCalls(Struct, frozen=True, kw_only=True):
    """What a plan limits."""

    mcp_proxy_calls: PlanUsage


class WorkspaceUsage(Struct, frozen=True, kw_only=True):
    """The calendar month's calls (UTC) against the plan's limit."""

    tier: str
    period: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}$")]
    usage: MeteredCalls


class AnsweredRange(Struct, frozen=True, kw_only=True):
    """The range that an answer covers; `clamped` if the plan's retention has shortened it."""

    from_: Time = field(name="from")
    to: Time
    tz: str
    clamped: bool


class Everything(Struct, frozen=True, kw_only=True):
    """All views of one range."""

    workspace_id: str
    plan: str
    range: AnsweredRange
    fresh_as_of: Time | None
    overview: Overview
    tools: list[ToolStats]
    members: list[MemberStats]
    servers: list[ServerStats]
    usage: WorkspaceUsage


class DimensionValues(Struct, frozen=True, kw_only=True):
    """The values that a group or a series has in common: those of the dimensions in `by`, and no others."""

    server_slug: str | UnsetType = UNSET
    tool_name: str | UnsetType = UNSET
    token_id: str | UnsetType = UNSET
    status: Status | UnsetType = UNSET
    error_type: ErrorType | UnsetType | None = UNSET


class CallGroup(DimensionValues, frozen=True, kw_only=True):
    """Calls that have the same values."""

    calls: Count
    errors: Count
    duration_ms: Durations


class CallGroups(Struct, frozen=True, kw_only=True):
    """Counts and durations of every combination that occurs."""

    by: list[Dimension]
    groups: list[CallGroup]


class TimelineSeries(DimensionValues, frozen=True, kw_only=True):
    """Counts in each bucket, in the order of the buckets."""

    calls: list[Count]
    errors: list[Count]


class Timeline(Struct, frozen=True, kw_only=True):
    """Counts in buckets, each up to where the next begins; whole days are days of the zone `tz`."""

    step_s: Annotated[int, Meta(ge=1)]
    buckets: list[Time]
    series: list[TimelineSeries]


class CallClient(Struct, frozen=True, kw_only=True):
    """The MCP client, as it named itself."""

    name: str
    version: str | None


class PhaseTiming(Struct, frozen=True, kw_only=True):
    """One bar of a call's waterfall; `start_ms` counts from the call's timestamp."""

    phase: Annotated[str, Meta(extra_json_schema={"enum": list(PHASES)})]
    start_ms: Milliseconds
    duration_ms: Milliseconds


class CallSummary(Struct, frozen=True, kw_only=True):
    """A call as pages and the live stream have it."""

    call_id: str
    timestamp: Time
    workspace_id: str
    token_id: str
    server_slug: str
    tool_name: str
    status: Status
    error_type: ErrorType | None
    error_message: str | None
    upstream_response: str | None
    duration_ms: Milliseconds
    total_ms: Milliseconds
    gateway_ms: float
    request_bytes: Count
    response_bytes: Count
    jsonrpc_code: int | None
    http_status: int | None
    transport: str
    protocol_version: str | None
    client: CallClient | None
    trace_id: str
    span_id: str

    @classmethod
    def of(cls, record: ToolCall) -> Self:
        """The model of a call, from its record."""
        values = {
            name: _DERIVED[name](record) if name in _DERIVED else getattr(record, name)
            for name in cls.__struct_fields__
        }
        return cls(**values)


class CallDetail(CallSummary, frozen=True, kw_only=True):
    """One call with all that is known of it."""

    phases: list[PhaseTiming]
    upstream_address: str | None
    upstream_span_id: str
    parent_span_id: str | None
    session_id: str | None
    jsonrpc_id: str | None
    replica: str


_DERIVED: Final[dict[str, Callable[[ToolCall], Any]]] = {
    "timestamp": lambda record: rfc3339(record.timestamp_ns),
    "client": lambda record: (
        None if record.client_name is None else CallClient(name=record.client_name, version=record.client_version)
    ),
    "phases": lambda record: [PhaseTiming(**phase._asdict()) for phase in record.waterfall()],
}
"""The members that are not a field of the record."""


class CallPage(Struct, frozen=True, kw_only=True):
    """A page of calls, newest first."""

    calls: list[CallSummary]
    next_cursor: str | None


class StreamLag(Struct, frozen=True, kw_only=True):
    """How many calls the live stream left out; null if nobody can count them."""

    skipped: Count | None


class ErrorBody(Struct, frozen=True, kw_only=True):
    """Why there is no answer; the wrong parameter, if there is one, and the values that it may have."""

    error: str
    parameter: str | UnsetType = UNSET
    allowed: list[str] | UnsetType = UNSET
