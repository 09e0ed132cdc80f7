"""The record of one tool call. Every signal is a pure function of `ToolCall`, so signals cannot disagree.

Units: `*_ns` integer nanoseconds since the Unix epoch, `*_ms` milliseconds, `*_bytes` bytes of the HTTP or
JSON-RPC body as the client sent or received it.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final, Literal, NamedTuple, get_args

from msgspec import Struct
from msgspec.structs import asdict

Status = Literal["success", "error"]
Dimension = Literal["server", "tool", "token", "status", "error_type"]

COLUMN_OF: Final[Mapping[Dimension, str]] = {
    "server": "server_slug",
    "tool": "tool_name",
    "token": "token_id",
    "status": "status",
    "error_type": "error_type",
}
"""What calls can be filtered and grouped by, and the field of `ToolCall` (and column of the ledger) that has it."""

UNKNOWN: Final = "_unknown"
"""The server or tool of a call whose name is in no catalog: label values never come from a request."""


class ErrorType(StrEnum):
    """Why a call failed: the same word in span, metric, log record, ledger and API."""

    TOOL_ERROR = "tool_error"
    JSONRPC_ERROR = "jsonrpc_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_HTTP_ERROR = "upstream_http_error"
    UPSTREAM_PROTOCOL_ERROR = "upstream_protocol_error"
    CANCELLED = "cancelled"
    UNKNOWN_TOOL = "unknown_tool"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    GATEWAY_ERROR = "gateway_error"


class Phases(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Milliseconds of each phase. They follow one another, so a phase starts where the one before it ends."""

    authenticate: float = 0.0
    route: float = 0.0
    acquire: float = 0.0
    send: float = 0.0
    wait: float = 0.0
    receive: float = 0.0
    respond: float = 0.0


class Phase(NamedTuple):
    """One bar of the waterfall; `start_ms` counts from the call's timestamp."""

    phase: str
    start_ms: float
    duration_ms: float


NO_PHASES: Final = Phases()
PHASES: Final[tuple[str, ...]] = Phases.__struct_fields__
UPSTREAM_PHASES: Final = frozenset({"acquire", "send", "wait", "receive"})


class CallIdentity(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known when a call starts; the fields that its start line and its record share."""

    call_id: str
    timestamp_ns: int
    workspace_id: str
    server_slug: str
    tool_name: str
    transport: Literal["http", "stdio"] = "http"
    """How the upstream is reached: Streamable HTTP (OTel `tcp`) or stdio (OTel `pipe`)."""
    upstream_address: str | None = None
    """`host:port` of a Streamable HTTP upstream."""
    replica: str = ""
    token_id: str
    protocol_version: str | None = None
    client_name: str | None = None
    client_version: str | None = None
    trace_id: str
    span_id: str
    """The SERVER span's id; `upstream_span_id` is the CLIENT span's, which goes upstream."""
    upstream_span_id: str
    request_bytes: int = 0
    jsonrpc_id: str | None = None
    session_id: str | None = None
    parent_span_id: str | None = None
    link_trace_id: str | None = None
    link_span_id: str | None = None
    trace_flags: int = 1


class CallStart(CallIdentity, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="start"):
    """The journal line written before a call goes upstream."""


class ToolCall(CallIdentity, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="end"):
    """One finished call, and the journal line that records it.

    `duration_ms` is the upstream's time, `total_ms` the client's, and the difference is the gateway's own.
    """

    status: Status
    error_type: ErrorType | None = None
    error_message: str | None = None
    upstream_response: str | None = None
    """A failed call's answer: redacted and capped."""
    jsonrpc_code: int | None = None
    duration_ms: float
    total_ms: float
    response_bytes: int = 0
    http_status: int | None = None
    """The upstream's HTTP status."""
    phases: Phases = NO_PHASES

    @property
    def gateway_ms(self) -> float:
        """Milliseconds that the gateway itself took, rounded like the two times that they are computed from."""
        return max(round(self.total_ms - self.duration_ms, 4), 0.0)

    def waterfall(self) -> Iterator[Phase]:
        """The phases that took place, in order."""
        start = 0.0
        for name in PHASES:
            duration: float = getattr(self.phases, name)
            if duration > 0:
                yield Phase(name, start, duration)
            start += duration


def ended(start: CallStart, status: Status, *, duration_ms: float, total_ms: float, **outcome: Any) -> ToolCall:
    """The record of a call that began with `start`; `outcome` are further members of `ToolCall`."""
    return ToolCall(**asdict(start), status=status, duration_ms=duration_ms, total_ms=total_ms, **outcome)


def abandoned(start: CallStart, *, now_ns: int) -> ToolCall:
    """The record of a call whose relay died before it ended: a `gateway_error` that lasted until `now_ns`."""
    return ended(
        start,
        "error",
        duration_ms=0.0,
        total_ms=max(now_ns - start.timestamp_ns, 0) / 1e6,
        error_type=ErrorType.GATEWAY_ERROR,
        error_message="the relay process ended before this call did; its client got no answer",
    )


class Operation(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="operation"):
    """One finished MCP request other than `tools/call` (`initialize`, `tools/list`, …), inbound or to an upstream."""

    side: Literal["server", "client"]
    """The gateway's role: `server` for a request of a client, `client` for a request to an upstream."""
    method: str
    timestamp_ns: int
    duration_ms: float
    workspace_id: str
    token_id: str | None = None
    server_slug: str | None = None
    error_type: str | None = None
    transport: Literal["http", "stdio"] = "http"


class UpstreamState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One upstream as a relay sees it."""

    workspace_id: str
    server_slug: str
    up: bool | None = None
    """None until the first contact."""
    last_success_ns: int = 0
    in_flight: int = 0
    tools: int = 0
    tools_list_bytes: int = 0
    tool_names: list[str] | None = None
    """The upstream's own names; not in every heartbeat."""


Rejection = Literal[
    "bad_request",
    "disconnected",
    "forbidden",
    "forbidden_origin",
    "gateway_error",
    "method_not_allowed",
    "not_acceptable",
    "not_found",
    "rate_limited",
    "too_large",
    "unauthorized",
    "unknown_session",
    "unknown_workspace",
]
"""Why a request was rejected before it became a call or an operation."""
REJECTIONS: Final[tuple[Rejection, ...]] = get_args(Rejection)
Decision = Literal["allowed", "refused"]
"""What happened to a call under an enforced limit while the usage was unknown."""
DECISIONS: Final[tuple[Decision, ...]] = get_args(Decision)


class Heartbeat(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event", tag="heartbeat"):
    """A relay's state apart from finished calls, once a second. Counts are those since the previous heartbeat."""

    timestamp_ns: int
    replica: str
    pid: int
    upstreams: list[UpstreamState] = []
    rejected: dict[str, int] = {}
    """Requests rejected before they became a call, by reason."""
    usage_unknown: dict[str, dict[str, int]] = {}
    """Calls under an enforced limit while the usage was unknown, by workspace and `Decision`."""
    dropped: int = 0
    """Journal lines that could not be written."""
    event_loop_lag_ms: float = 0.0
    """The largest lag of the event loop."""


Event = CallStart | ToolCall | Operation | Heartbeat
