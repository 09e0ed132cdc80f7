"""Every name that Callscope's telemetry has, once, as data. A leaf: dashboards, rules, docs and tests read it.

Metrics follow https://prometheus.io/docs/practices/naming/; the two `mcp_*_operation_duration_seconds` and the
attributes are the OTel semantic conventions' for MCP and GenAI (status Development).
"""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

OTHER: Final = "__other__"
"""The label value of the series that take what is over a metric's budget."""

DURATION_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds, without +Inf: the semantic conventions'."""
FINE_BUCKETS: Final = (0.001, 0.002, 0.005, *DURATION_BUCKETS)
"""For what is mostly quicker than 10 ms: phases, and the gateway's own time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric family as it is exposed; a counter's name ends in `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    unit: str = ""
    """What the name ends in, if it has a unit."""
    buckets: tuple[float, ...] = ()
    """A histogram's upper bounds in `unit`, without +Inf."""
    collapse: tuple[str, ...] = ()
    """The labels that become `__other__`, one after the other, over the metric's budget; none: it has no budget."""

    @property
    def family(self) -> str:
        """The family's name in OpenMetrics, which a counter's samples extend by `_total`."""
        return self.name.removesuffix("_total") if self.kind == "counter" else self.name

    @property
    def series_per_label_set(self) -> int:
        """1, or a histogram's buckets with +Inf, its sum and its count."""
        return len(self.buckets) + 3 if self.kind == "histogram" else 1


# -- metrics: calls

TOOL_CALLS: Final = Metric(
    name="mcp_gateway_tool_calls_total",
    kind="counter",
    labels=("workspace", "token", "server", "tool", "status", "error_type"),
    collapse=("token", "tool"),
    help="Tool calls that ended, those that the gateway refused included.",
)
TOOL_CALL_DURATION: Final = Metric(
    name="mcp_gateway_tool_call_duration_seconds",
    kind="histogram",
    unit="seconds",
    buckets=DURATION_BUCKETS,
    labels=("workspace", "token", "server", "tool"),
    collapse=("token", "tool"),
    help="Time that the upstream took for a tool call; 0 for a call that did not go upstream.",
)
PHASE_DURATION: Final = Metric(
    name="mcp_gateway_phase_duration_seconds",
    kind="histogram",
    unit="seconds",
    buckets=FINE_BUCKETS,
    labels=("phase", "server"),
    collapse=("server",),
    help="Time of one phase of a tool call, of the calls that had the phase.",
)
OVERHEAD: Final = Metric(
    name="mcp_gateway_overhead_seconds",
    kind="histogram",
    unit="seconds",
    buckets=FINE_BUCKETS,
    labels=("workspace",),
    collapse=("workspace",),
    help="Time that the gateway itself took for a tool call: total minus upstream.",
)
_OPERATION: Final = ("mcp_method_name", "gen_ai_tool_name", "error_type", "network_transport")
SERVER_OPERATION_DURATION: Final = Metric(
    name="mcp_server_operation_duration_seconds",
    kind="histogram",
    unit="seconds",
    buckets=DURATION_BUCKETS,
    labels=_OPERATION,
    collapse=("gen_ai_tool_name",),
    help="Duration of an MCP request as the gateway, its receiver, observed it.",
)
CLIENT_OPERATION_DURATION: Final = Metric(
    name="mcp_client_operation_duration_seconds",
    kind="histogram",
    unit="seconds",
    buckets=DURATION_BUCKETS,
    labels=_OPERATION,
    collapse=("gen_ai_tool_name",),
    help="Duration of an MCP request to an upstream as the gateway, its sender, observed it.",
)
REQUESTS_REJECTED: Final = Metric(
    name="mcp_gateway_requests_rejected_total",
    kind="counter",
    labels=("reason",),
    help="Requests that were turned away before they became a call or an operation.",
)

# -- metrics: the relays' state

_UPSTREAM: Final = ("workspace", "server")
IN_FLIGHT_CALLS: Final = Metric(
    name="mcp_gateway_in_flight_calls",
    kind="gauge",
    labels=_UPSTREAM,
    help="Tool calls that have started and not ended.",
)
UPSTREAM_UP: Final = Metric(
    name="mcp_gateway_upstream_up",
    kind="gauge",
    labels=_UPSTREAM,
    help="Whether the upstream answered when it was last asked: 1 or 0; no series before it was asked.",
)
UPSTREAM_LAST_SUCCESS: Final = Metric(
    name="mcp_gateway_upstream_last_success_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=_UPSTREAM,
    help="When the upstream last answered, since the Unix epoch; no series before it did.",
)
TOOLS: Final = Metric(
    name="mcp_gateway_tools",
    kind="gauge",
    labels=_UPSTREAM,
    help="Tools in the upstream's catalogue.",
)
TOOLS_LIST_BYTES: Final = Metric(
    name="mcp_gateway_tools_list_bytes",
    kind="gauge",
    unit="bytes",
    labels=_UPSTREAM,
    help="Size of the upstream's catalogue in tools/list: the context that it costs a model.",
)
EVENT_LOOP_LAG: Final = Metric(
    name="mcp_gateway_event_loop_lag_seconds",
    kind="gauge",
    unit="seconds",
    labels=("process",),
    help="Worst lag of an event loop in the last 15 seconds, of all processes of the kind.",
)

# -- metrics: members, workspaces, plans

TOKEN_INFO: Final = Metric(
    name="mcp_gateway_token_info",
    kind="gauge",
    labels=("workspace", "token", "name", "kind"),
    help="1 for each configured token: joins its name to its id.",
)
TOKEN_LAST_USED: Final = Metric(
    name="mcp_gateway_token_last_used_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=("workspace", "token"),
    collapse=("token",),
    help="When the token's last request began, since the Unix epoch.",
)
WORKSPACE_INFO: Final = Metric(
    name="mcp_gateway_workspace_info",
    kind="gauge",
    labels=("workspace", "name", "plan"),
    help="1 for each configured workspace: joins its name and its plan to its id.",
)
LEDGER_CALLS: Final = Metric(
    name="mcp_gateway_ledger_calls",
    kind="gauge",
    labels=("workspace", "period"),
    help="Calls of the period (today, week, month; in UTC), those that the gateway refused included, from the ledger.",
)
USAGE_CALLS: Final = Metric(
    name="mcp_gateway_usage_calls",
    kind="gauge",
    labels=("workspace",),
    help="Calls of this period that count against the plan's limit, from the ledger.",
)
PLAN_LIMIT_CALLS: Final = Metric(
    name="mcp_gateway_plan_limit_calls",
    kind="gauge",
    labels=("workspace", "plan"),
    help="Calls that the plan allows in a period; no series if it is unlimited.",
)
USAGE_PERIOD_END: Final = Metric(
    name="mcp_gateway_usage_period_end_timestamp_seconds",
    kind="gauge",
    unit="seconds",
    labels=("workspace",),
    help="When the plan's period ends, since the Unix epoch.",
)

USAGE_UNKNOWN: Final = Metric(
    name="mcp_gateway_usage_unknown_total",
    kind="counter",
    labels=("workspace", "decision"),
    help=(
        "Tool calls under an enforced limit while it was not known what the workspace has used: allowed (usage.fail is "
        "open) or refused (closed)."
    ),
)

# -- metrics: the gateway itself

SINK_LAG_SECONDS: Final = Metric(
    name="mcp_gateway_sink_lag_seconds",
    kind="gauge",
    unit="seconds",
    labels=("sink",),
    help="How long ago the sink had taken everything that stood in the journal; 0 if it has it now.",
)
SINK_LAG_BYTES: Final = Metric(
    name="mcp_gateway_sink_lag_bytes",
    kind="gauge",
    unit="bytes",
    labels=("sink",),
    help="What stands in the journal and the sink has not read.",
)
RECORDS_DROPPED: Final = Metric(
    name="mcp_gateway_records_dropped_total",
    kind="counter",
    labels=("sink", "reason"),
    help=(
        "Records that are lost to a sink. Reasons: disk (it refused journal lines), max_bytes (of the journal), "
        "corrupt (lines that are no event), corrupt_state (1 for a whole state file); of spans and log records: "
        "rejected (the collector took the export but for them), refused (it did not take the export), too_large (it "
        "takes no export that is as large as one call)."
    ),
)
SERIES_OVERFLOW: Final = Metric(
    name="mcp_gateway_series_overflow_total",
    kind="counter",
    labels=("metric",),
    help=f"Records that were counted under {OTHER}, because the metric's series budget is used up.",
)
LEDGER_ROWS_DELETED: Final = Metric(
    name="mcp_gateway_ledger_rows_deleted_total",
    kind="counter",
    labels=("workspace",),
    help="Calls that the ledger has deleted because they were older than the plan's retention.",
)
CONFIG_RELOADS: Final = Metric(
    name="mcp_gateway_config_reloads_total",
    kind="counter",
    labels=("status",),
    help="Changes of the configuration file that were taken over (success) or refused (error) since the start.",
)
CONFIG_VALID: Final = Metric(
    name="mcp_gateway_config_last_reload_successful",
    kind="gauge",
    help="Whether the configuration file is the one that holds: 0 while it is refused, as when it was last read.",
)
BUILD_INFO: Final = Metric(
    name="mcp_gateway_build_info",
    kind="gauge",
    labels=("process", "version"),
    help="1: which version runs.",
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
