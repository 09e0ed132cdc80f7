"""Logs: every call as it happens, and of a failed one the whole error and what the upstream answered."""

from dashboards import variables
from dashboards.board import board
from dashboards.boards import drilldowns
from dashboards.fields import BAD, GOOD
from dashboards.grafanalib_ext import Json, Panel
from dashboards.layout import Section
from dashboards.links import Uid, drilldown, of_row, of_series
from dashboards.panels import chart, logs, stat
from dashboards.queries import logs as query
from dashboards.tables import Column, from_labels, table
from dashboards.targets import lines, log_count, log_counts

NUMBERS = ("duration_ms", "gateway_ms", "total_ms")


def logs_dashboard() -> Json:
    """The live stream of calls, and its filters."""
    return board(
        Uid.LOGS,
        "Every call as it happens; of a failed one the whole error message and what the upstream answered.",
        [_answer(), _calls(), _lines()],
        filters=("workspace", "server", "tool", "member"),
        more=[variables.status(), variables.error_type(), variables.text("search", "Search (regular expression)")],
        first="loki",
        sources=("loki", "prometheus"),
        since="now-1h",
        refresh="5s",
    )


def _answer() -> Section:
    return Section(
        "",
        [
            stat(
                "Calls found",
                "Calls of the time range that the filters leave: counted, not extrapolated.",
                log_count(query.count()),
                unit="locale",
                empty="0",
            ),
            stat(
                "Failed",
                "Those of them that failed.",
                log_count(query.count_failed()),
                unit="locale",
                steps=((1, BAD),),
                first=GOOD,
                empty="0",
                links=[drilldowns.failed_calls()],
            ),
            stat(
                "Longest wait",
                "The longest that a client waited for one of them.",
                log_count(query.longest()),
                unit="ms",
                empty="no calls",
            ),
            chart(
                "Calls over time",
                "How many calls ended, by outcome.",
                log_counts(query.count("status"), "{{status}}"),
                unit="short",
                stacked=True,
                bars=True,
                width=12,
                height=4,
                links=[drilldowns.by_status()],
            ),
        ],
    )


def _calls() -> Section:
    return Section(
        "Calls",
        [
            table(
                "Newest calls",
                "The newest 500 calls that the filters leave. The trace id leads to where the time went.",
                [lines(query.chosen())],
                [
                    Column("Time", "Time", "dateTimeAsSystem", also="timestamp"),
                    Column("trace_id", "Trace", links=[drilldowns.call("Trace")]),
                    Column("mcp_workspace_id", "Workspace"),
                    Column("token_id", "Token"),
                    Column("server_slug", "Server"),
                    Column("tool_name", "Tool", links=drilldowns.members_tool(drilldowns.row)),
                    Column("status", "Status"),
                    Column("error_type", "Error type"),
                    Column("total_ms", "Total", "ms"),
                    Column("duration_ms", "Upstream", "ms"),
                    Column("gateway_ms", "Gateway", "ms"),
                    Column("error_message", "Error message"),
                    Column("mcp_upstream_response", "Upstream response"),
                ],
                sort="Time",
                before=from_labels(NUMBERS),
                height=12,
            )
        ],
    )


def _lines() -> Section:
    return Section(
        "Live",
        [
            logs(
                "Calls as they happen",
                "One line for each call, the newest first; open one for every attribute, and for the way to its trace.",
                lines(query.chosen()),
                width=12,
            ),
            logs(
                "Failed calls in full",
                "Failed calls with the whole error message and what the upstream answered, redacted and capped.",
                lines(query.failed(), 200),
                width=12,
            ),
        ],
        _what_fails(),
    )


def _what_fails() -> list[Panel]:
    """What fails most, and when."""
    return [
        table(
            "What fails most",
            "The ten most frequent failures that the filters leave.",
            [_instant_rows(query.top_failures(10))],
            [
                Column("server_slug", "Server"),
                Column("tool_name", "Tool"),
                Column(
                    "error_type",
                    "Error type",
                    links=[
                        drilldown(
                            Uid.LOGS,
                            "These calls",
                            server=of_row("Server"),
                            tool=of_row("Tool"),
                            error_type=of_row("Error type"),
                            status="error",
                        )
                    ],
                ),
                Column("Value #A", "Calls", "locale"),
            ],
            sort="Calls",
            width=12,
            height=9,
        ),
        chart(
            "Failures over time",
            "How many calls failed, by kind.",
            log_counts(query.count_failed("error_type"), "{{error_type}}"),
            unit="short",
            stacked=True,
            bars=True,
            width=12,
            height=9,
            links=[drilldown(Uid.LOGS, "These calls", status="error", error_type=of_series("error_type"))],
        ),
    ]


_instant_rows = log_count
