"""Call: one call's waterfall, where its time went, what it said; and calls that are worth a look."""

from dashboards import variables
from dashboards.board import board
from dashboards.boards import drilldowns
from dashboards.fields import VISIBLE
from dashboards.grafanalib_ext import Json
from dashboards.layout import Section
from dashboards.links import Uid, drilldown
from dashboards.panels import chart, logs, stat, waterfall
from dashboards.promql import Scope
from dashboards.queries import gateway
from dashboards.queries import logs as log
from dashboards.queries import traces as trace
from dashboards.tables import Column, from_labels, table
from dashboards.targets import lines, log_counts, over_time, traces
from gateway.observer import signals

SLOW_S = 1.0
HIDDEN = "traceIdHidden"
"""The field of the trace's id, where a row is a span. Grafana shows it only if it is told to."""


def call() -> Json:
    """Call detail."""
    return board(
        Uid.CALL,
        "Where the time of one call went, the gateway's part against the upstream's, and what was said.",
        [_answer(), _said(), _worth_a_look()],
        filters=("workspace", "server", "tool", "member"),
        more=[variables.text("trace_id", "Trace id")],
        first="tempo",
        sources=("tempo", "loki", "prometheus"),
        since="now-6h",
        refresh="",
    )


def _answer() -> Section:
    name = "{{server_slug}} / {{tool_name}}"
    return Section(
        "",
        [
            stat(
                "Total time",
                "How long the client waited for the call; a trace may have several calls.",
                log_counts(log.measure_of_trace("total_ms"), name),
                unit="ms",
                width=8,
                empty="type a trace id",
            ),
            stat(
                "Upstream's part",
                "How long the upstream took.",
                log_counts(log.measure_of_trace("duration_ms"), name),
                unit="ms",
                width=8,
                empty="-",
            ),
            stat(
                "Gateway's part",
                "What the gateway itself added: the total less the upstream's part.",
                log_counts(log.measure_of_trace("gateway_ms"), name),
                unit="ms",
                width=8,
                empty="-",
            ),
        ],
        [
            waterfall(
                "Waterfall",
                "The call's spans: authenticate, route, the upstream call (acquire, send, wait, receive), respond.",
                trace.ONE,
            )
        ],
    )


def _said() -> Section:
    return Section(
        "What was said",
        [
            table(
                "Calls of this trace",
                "Who called what, and how it ended.",
                [lines(log.of_trace(), 100)],
                [
                    Column("Time", "Time", "dateTimeAsSystem", also="timestamp"),
                    Column("mcp_workspace_id", "Workspace"),
                    Column("token_id", "Token"),
                    Column("server_slug", "Server"),
                    Column("tool_name", "Tool", links=drilldowns.members_tool(drilldowns.row)),
                    Column("status", "Status"),
                    Column("error_type", "Error type"),
                    Column("error_message", "Error message"),
                    Column("mcp_upstream_response", "Upstream response"),
                    Column("request_bytes", "Request", "bytes"),
                    Column("response_bytes", "Response", "bytes"),
                ],
                sort="Time",
                before=from_labels(("request_bytes", "response_bytes")),
                height=6,
            )
        ],
        [
            logs(
                "Log of this trace",
                "The log record of each call, with every attribute.",
                lines(log.of_trace(), 100),
                height=7,
            )
        ],
    )


def _worth_a_look() -> Section:
    columns = [
        Column("time", "Start", "dateTimeAsSystem", also="Start time"),
        Column(HIDDEN, "Trace", links=[drilldowns.call("Trace")], custom__hidden=False, custom__hideFrom=VISIBLE),
        Column(signals.MCP_WORKSPACE_ID, "Workspace"),
        Column(signals.GEN_AI_TOOL_NAME, "Call", links=[drilldowns.call("Trace")]),
        Column(signals.MCP_SERVER_SLUG, "Server"),
        Column(signals.MCP_TOKEN_ID, "Token"),
        Column(signals.ERROR_TYPE, "Error type"),
        Column("duration", "Duration", "ns", also="Duration"),
    ]
    slow = (
        f"Calls of the time range that took longer than {SLOW_S:g} s; a click on the trace or the call opens it above."
    )
    return Section(
        "Calls that are worth a look",
        [table("Slow calls", slow, [traces(trace.slow(SLOW_S))], columns, sort="Duration")],
        [
            table(
                "Failed calls",
                "Calls of the time range that failed; a click on the trace or the call opens it above.",
                [traces(trace.failed())],
                columns,
                sort="Start",
            )
        ],
        [
            chart(
                "Usual phases",
                "p95 of each phase, of the calls of all workspaces to the chosen servers: to hold one call against.",
                over_time(gateway.phases(Scope("server"), 0.95), "{{phase}}", exemplar=True),
                unit="s",
                width=24,
                links=[drilldown(Uid.GATEWAY, "The gateway itself")],
            )
        ],
    )
