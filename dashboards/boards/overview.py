"""Overview: how much is going on, does it work, is it quick; then why not."""

from grafanalib.core import DataLink

from dashboards.board import board
from dashboards.boards import drilldowns
from dashboards.fields import BAD, FAILURES, FAIR, GOOD, LATENCY
from dashboards.grafanalib_ext import Json
from dashboards.layout import Section
from dashboards.links import Uid, drilldown
from dashboards.panels import chart, ranking, stat
from dashboards.promql import Scope
from dashboards.queries import calls, gateway, members, servers
from dashboards.tables import Column, table
from dashboards.targets import at_once, over_time, rows

SCOPE = Scope("workspace")


def overview() -> Json:
    """The dashboard that one opens first."""
    return board(
        Uid.OVERVIEW,
        "How many tool calls there are, whether they work, how quick they are and who makes them.",
        [_answer(), _health(), _who_and_what(), _servers()],
        filters=("workspace",),
    )


def _answer() -> Section:
    exactly = "Exact: the ledger's count, in UTC."
    recorded = "Reads a recording rule."
    logs = [drilldowns.all_calls()]
    return Section(
        "",
        [
            stat(
                "Calls today",
                f"Tool calls since midnight, those that the gateway refused included. {exactly}",
                at_once(calls.count_in_ledger(SCOPE, "today")),
                unit="locale",
                decimals=0,
                links=logs,
                empty="0",
            ),
            stat(
                "Calls this week",
                f"Tool calls since Monday. {exactly}",
                at_once(calls.count_in_ledger(SCOPE, "week")),
                unit="locale",
                decimals=0,
                links=logs,
                empty="0",
            ),
            stat(
                "Calls this month",
                f"Tool calls since the month began. {exactly}",
                at_once(calls.count_in_ledger(SCOPE, "month")),
                unit="locale",
                decimals=0,
                links=[drilldown(Uid.USAGE, "Usage")],
                empty="0",
            ),
            stat(
                "Success rate",
                f"The share of the calls in the time range that succeeded, refused ones counted as failed. {recorded}",
                at_once(calls.success_ratio_of_all(SCOPE)),
                unit="percentunit",
                decimals=2,
                steps=((0.95, FAIR), (0.99, GOOD)),
                first=BAD,
                links=[drilldowns.failed_calls()],
                empty="no calls",
            ),
            stat(
                "Average response time",
                f"What upstreams took for a call, on average; one that was not sent took none. {recorded}",
                at_once(calls.average_of_all(SCOPE)),
                unit="s",
                steps=LATENCY,
                first=GOOD,
                links=[drilldown(Uid.TOOLS, "Which tools are slow")],
                empty="no calls",
            ),
            stat(
                "Active tokens",
                f"Members and bots that called a tool in the time range. {recorded}",
                at_once(calls.active_members(SCOPE)),
                unit="locale",
                decimals=0,
                links=[drilldown(Uid.MEMBERS, "Who they are")],
            ),
        ],
    )


def _health() -> Section:
    durations = [
        over_time(calls.duration_over_time(SCOPE, 0.5), "p50", exemplar=True),
        over_time(calls.duration_over_time(SCOPE, 0.95), "p95", exemplar=True),
        over_time(calls.duration_over_time(SCOPE, 0.99), "p99", exemplar=True),
        over_time(calls.average_over_time(SCOPE), "average"),
    ]
    return Section(
        "Does it work, and is it quick",
        [
            chart(
                "Calls by outcome",
                "Tool calls a minute that succeeded and that failed.",
                over_time(calls.per_minute(SCOPE, "status"), "{{status}}"),
                unit="cpm",
                stacked=True,
                links=[drilldowns.by_status()],
            ),
            chart(
                "Response time",
                "What upstreams took for a call. A point is a single call, and leads to it.",
                *durations,
                unit="s",
                steps=LATENCY,
                links=[drilldowns.all_calls()],
            ),
        ],
        [
            chart(
                "Failures by kind",
                "Failed calls a minute: tool_error is the tool's own, only gateway_error is the gateway's fault.",
                over_time(calls.failures_per_minute(SCOPE, "error_type"), "{{error_type}}"),
                unit="cpm",
                stacked=True,
                links=[drilldowns.by_error()],
            ),
            chart(
                "Gateway against upstream",
                "Where a call's time goes on average, phase by phase, of all workspaces: wait is the upstream at work.",
                over_time(calls.phase_average_over_time(Scope()), "{{phase}}"),
                unit="s",
                stacked=True,
                width=6,
                links=_to_gateway(),
            ),
            table(
                "Firing alerts",
                "Alerts of Callscope's rules that fire now.",
                [rows(gateway.FIRING)],
                [
                    Column("alertname", "Alert"),
                    Column("severity", "Severity"),
                    Column("workspace", "Workspace"),
                    Column("server", "Server"),
                ],
                sort="Severity",
                width=6,
                height=8,
            ),
        ],
    )


def _to_gateway() -> list[DataLink]:
    return [drilldown(Uid.GATEWAY, "The gateway itself"), drilldown(Uid.SERVERS, "The servers")]


def _who_and_what() -> Section:
    return Section(
        "Who calls what",
        [
            ranking(
                "Most called tools",
                "The ten tools with the most calls in the time range, approximately.",
                at_once(calls.most_called(SCOPE, 10), "{{workspace}} / {{server}} / {{tool}}"),
                unit="locale",
                links=drilldowns.tool(),
            ),
            ranking(
                "Most failing tools",
                "The ten tools of which the highest share of calls failed in the time range.",
                at_once(calls.most_failing(SCOPE, 10), "{{workspace}} / {{server}} / {{tool}}"),
                unit="percentunit",
                steps=FAILURES,
                links=drilldowns.tool(),
            ),
            ranking(
                "Most active members",
                "The ten members and bots with the most calls in the time range, approximately.",
                at_once(members.most_active(SCOPE, 10), "{{workspace}} / {{name}}"),
                unit="locale",
                links=drilldowns.member(),
            ),
        ],
    )


def _servers() -> Section:
    by = calls.SERVER
    return Section(
        "Servers",
        [
            table(
                "Servers at a glance",
                "Each upstream server's state, and its calls in the time range.",
                [
                    rows(servers.up(SCOPE)),
                    rows(calls.count(SCOPE, *by)),
                    rows(calls.failure_ratio(SCOPE, *by)),
                    rows(calls.average(SCOPE, *by)),
                    rows(calls.duration(SCOPE, 0.95, *by)),
                ],
                [
                    Column("workspace", "Workspace"),
                    Column("server", "Server", links=drilldowns.server(drilldowns.row)),
                    Column("Value #A", "Up", "bool_yes_no", steps=((1, GOOD),), first=BAD),
                    Column("Value #B", "Calls", "locale", decimals=0),
                    Column("Value #C", "Failed", "percentunit", steps=FAILURES, decimals=2),
                    Column("Value #D", "Average", "s"),
                    Column("Value #E", "p95", "s", steps=LATENCY),
                ],
                sort="Calls",
                height=8,
            ),
        ],
    )
