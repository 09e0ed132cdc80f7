"""Every name that Callscope's telemetry has, once, as data. A leaf: dashboards, rules, docs and tests read it.

Metrics follow https://prometheus.io/docs/practices/naming/; the two `mcp_*_operation_duration_seconds` and the
attributes are the OTel semantic conventions' for MCP and GenAI (status Development).
"""

from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

OTHER: Final = "__other__"
"""The label value of the series that count what is over a metric's budget."""

DURATION_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds, without +Inf: the semantic conventions'."""
FINE_BUCKETS: Final = (0.001, 0.002, 0.005, *DURATION_BUCKETS)
"""For what is mostly quicker than 10 ms: phases, and the gateway's own time."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family as it is exposed; a counter's name ends in `_total`."""

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """A histogram's upper bounds in seconds, without +Inf."""
    collapse: tuple[str, ...] = ()
    """The labels that become `__other__`, one after the other, over the metric's budget; none: it has no budget."""

    @property
    def family(self) -> str:
        """The family's name in OpenMetrics, which a counter's samples extend by `_total`."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name

    @property
    def unit(self) -> str:
        """What the name ends in, if it has a unit."""
        last = self.name.rpartition("_")[2]
        return last if last in {"seconds", "bytes"} else ""

    @property
    def series_per_label_set(self) -> int:
        """1, or a histogram's buckets with +Inf, its sum and its count."""
        return len(self.buckets) + 3 if self.kind == "histogram" else 1


_counter = partial(Metric, "counter")
_gauge = partial(Metric, "gauge")
_histogram = partial(Metric, "histogram")

# -- metrics: calls

TOOL_CALLS: Final = _counter(
    "mcp_gateway_tool_calls_total",
    "Tool calls that ended, including those that the gateway refused.",
    ("workspace", "token", "server", "tool", "status", "error_type"),
    collapse=("token", "tool"),
)
TOOL_CALL_DURATION: Final = _histogram(
    "mcp_gateway_tool_call_duration_seconds",
    "Time that the upstream took for a tool call; 0 for a call that did not go upstream.",
    ("workspace", "token", "server", "tool"),
    buckets=DURATION_BUCKETS,
    collapse=("token", "tool"),
)
PHASE_DURATION: Final = _histogram(
    "mcp_gateway_phase_duration_seconds",
    "Time of one phase of a tool call; calls without the phase are not counted.",
    ("phase", "server"),
    buckets=FINE_BUCKETS,
    collapse=("server",),
)
OVERHEAD: Final = _histogram(
    "mcp_gateway_overhead_seconds",
    "Time that the gateway itself took for a tool call: total minus upstream.",
    ("workspace",),
    buckets=FINE_BUCKETS,
    collapse=("workspace",),
)
_OPERATION: Final = ("mcp_method_name", "gen_ai_tool_name", "error_type", "network_transport")
SERVER_OPERATION_DURATION: Final = _histogram(
    "mcp_server_operation_duration_seconds",
    "Duration of an MCP request from a client, as the gateway, its receiver, observed it.",
    _OPERATION,
    buckets=DURATION_BUCKETS,
    collapse=("gen_ai_tool_name",),
)
CLIENT_OPERATION_DURATION: Final = _histogram(
    "mcp_client_operation_duration_seconds",
    "Duration of an MCP request to an upstream, as the gateway, its sender, observed it.",
    _OPERATION,
    buckets=DURATION_BUCKETS,
    collapse=("gen_ai_tool_name",),
)
REQUESTS_REJECTED: Final = _counter(
    "mcp_gateway_requests_rejected_total",
    "Requests rejected before they became a call or an operation.",
    ("reason",),
)

# -- metrics: the relays' state

_UPSTREAM: Final = ("workspace", "server")
IN_FLIGHT_CALLS: Final = _gauge("mcp_gateway_in_flight_calls", "Tool calls that have started and not ended.", _UPSTREAM)
UPSTREAM_UP: Final = _gauge(
    "mcp_gateway_upstream_up",
    "Whether the upstream responded to the last request: 1 or 0; no series before the first request.",
    _UPSTREAM,
)
UPSTREAM_LAST_SUCCESS: Final = _gauge(
    "mcp_gateway_upstream_last_success_timestamp_seconds",
    "Unix time of the upstream's last response; no series before the first.",
    _UPSTREAM,
)
TOOLS: Final = _gauge("mcp_gateway_tools", "Tools in the upstream's catalog.", _UPSTREAM)
TOOLS_LIST_BYTES: Final = _gauge(
    "mcp_gateway_tools_list_bytes",
    "Size of the upstream's catalog in tools/list, which is the context that it costs a model.",
    _UPSTREAM,
)
EVENT_LOOP_LAG: Final = _gauge(
    "mcp_gateway_event_loop_lag_seconds",
    "Worst lag of an event loop in the last 15 seconds, over all processes of the kind.",
    ("process",),
)

# -- metrics: members, workspaces, plans

TOKEN_INFO: Final = _gauge(
    "mcp_gateway_token_info",
    "1 for each configured token; join it to get the name for an id.",
    ("workspace", "token", "name", "kind"),
)
TOKEN_LAST_USED: Final = _gauge(
    "mcp_gateway_token_last_used_timestamp_seconds",
    "Unix time at which the token's last request began.",
    ("workspace", "token"),
    collapse=("token",),
)
WORKSPACE_INFO: Final = _gauge(
    "mcp_gateway_workspace_info",
    "1 for each configured workspace; join it to get the name and the plan for an id.",
    ("workspace", "name", "plan"),
)
LEDGER_CALLS: Final = _gauge(
    "mcp_gateway_ledger_calls",
    "Calls of the period (today, week, month; in UTC) in the ledger, including those that the gateway refused.",
    ("workspace", "period"),
)
USAGE_CALLS: Final = _gauge(
    "mcp_gateway_usage_calls",
    "Calls of this month in the ledger that count against the plan's limit.",
    ("workspace",),
)
PLAN_LIMIT_CALLS: Final = _gauge(
    "mcp_gateway_plan_limit_calls",
    "Calls that the plan allows in a month; no series if it is unlimited.",
    ("workspace", "plan"),
)
USAGE_PERIOD_END: Final = _gauge(
    "mcp_gateway_usage_period_end_timestamp_seconds",
    "Unix time at which the plan's month ends.",
    ("workspace",),
)

USAGE_UNKNOWN: Final = _counter(
    "mcp_gateway_usage_unknown_total",
    (
        "Tool calls under an enforced limit while the workspace's usage was unknown: allowed (usage.fail: open) or "
        "refused (usage.fail: closed)."
    ),
    ("workspace", "decision"),
)

# -- metrics: the gateway itself

SINK_LAG_SECONDS: Final = _gauge(
    "mcp_gateway_sink_lag_seconds",
    "Seconds since the sink had processed the whole journal; 0 if it has now.",
    ("sink",),
)
SINK_LAG_BYTES: Final = _gauge(
    "mcp_gateway_sink_lag_bytes", "Bytes of the journal that the sink has not processed.", ("sink",)
)
RECORDS_DROPPED: Final = _counter(
    "mcp_gateway_records_dropped_total",
    (
        "Records that a sink has lost. Reasons: disk (it refused journal lines), max_bytes (the journal was over its "
        "limit), corrupt (lines that are not events), corrupt_state (1 for a whole state file); of spans and log "
        "records: rejected (the collector took the rest of the export), refused (it refused the export), too_large (a "
        "single call is more than it takes)."
    ),
    ("sink", "reason"),
)
SERIES_OVERFLOW: Final = _counter(
    "mcp_gateway_series_overflow_total",
    f"Records counted under {OTHER} because the metric's series budget is used up.",
    ("metric",),
)
LEDGER_ROWS_DELETED: Final = _counter(
    "mcp_gateway_ledger_rows_deleted_total",
    "Calls deleted from the ledger because they were older than the plan's retention.",
    ("workspace",),
)
CONFIG_RELOADS: Final = _counter(
    "mcp_gateway_config_reloads_total",
    "Changes of the configuration file that were applied (success) or rejected (error) since the start.",
    ("status",),
)
CONFIG_VALID: Final = _gauge(
    "mcp_gateway_config_last_reload_successful",
    "Whether the configuration file was valid when it was last read: 1, or 0 while the last valid one stays in use.",
)
BUILD_INFO: Final = _gauge(
    "mcp_gateway_build_info", "1 for each kind of process, with the version that runs.", ("process", "version")
)

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All of Callscope's own, in this file's order."""

PROCESS_METRICS: Final = (
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
)
"""What prometheus_client exposes of the observer's process, on Linux."""

# -- attributes of spans and log records: the semantic conventions'

MCP_METHOD_NAME: Final = "mcp.method.name"
MCP_PROTOCOL_VERSION: Final = "mcp.protocol.version"
MCP_SESSION_ID: Final = "mcp.session.id"
JSONRPC_REQUEST_ID: Final = "jsonrpc.request.id"
GEN_AI_OPERATION_NAME: Final = "gen_ai.operation.name"
GEN_AI_TOOL_NAME: Final = "gen_ai.tool.name"
NETWORK_TRANSPORT: Final = "network.transport"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
ERROR_MESSAGE: Final = "error.message"
RPC_RESPONSE_STATUS_CODE: Final = "rpc.response.status_code"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"

# -- attributes of spans and log records: Callscope's own

MCP_WORKSPACE_ID: Final = "mcp.workspace.id"
MCP_TOKEN_ID: Final = "mcp.token.id"  # noqa: S105 - an attribute's name
MCP_SERVER_SLUG: Final = "mcp.server.slug"
MCP_CALL_ID: Final = "mcp.call.id"
MCP_CLIENT_NAME: Final = "mcp.client.name"
MCP_CLIENT_VERSION: Final = "mcp.client.version"
MCP_EVENT: Final = "mcp.event"
MCP_RETENTION: Final = "mcp.retention"
MCP_UPSTREAM_RESPONSE: Final = "mcp.upstream.response"

# -- values

SCOPE: Final = "callscope"
"""The tracer's and logger's scope, and `service.name`."""
TOOLS_CALL: Final = "tools/call"
"""`mcp.method.name` of every tool call."""
EXECUTE_TOOL: Final = "execute_tool"
"""`gen_ai.operation.name` of every tool call."""
TOOL_CALL_EVENT: Final = "mcp.tool_call"
"""The event name of a tool call's log record."""
TRANSPORTS: Final = {"http": "tcp", "stdio": "pipe"}
"""`network.transport` by a record's `transport`."""
