"""Tools: which are used, which fail, which are slow, and which are worth keeping."""

from dashboards.board import board
from dashboards.boards import drilldowns, totals
from dashboards.fields import FAILURES, GOOD, LATENCY
from dashboards.grafanalib_ext import Json, Panel
from dashboards.layout import Section
from dashboards.links import Uid, drilldown
from dashboards.panels import chart, heatmap, ranking, stat
from dashboards.promql import Scope
from dashboards.queries import calls, servers
from dashboards.tables import Column, table
from dashboards.targets import at_once, buckets, over_time, rows

SCOPE = Scope("workspace", "server", "tool", "token")
OFFERED = Scope("workspace", "server")
BY = calls.TOOL
NAME = "{{workspace}} / {{server}} / {{tool}}"


def tools() -> Json:
    """Tool breakdown."""
    return board(
        Uid.TOOLS,
        "Calls, failures and durations of each tool, and what the tools on offer cost a model.",
        [_answer(), _rankings(), _table(), _over_time(), _catalogs()],
        filters=("workspace", "server", "tool", "member"),
    )


def _answer() -> Section:
    return Section(
        "",
        [
            stat(
                "Tools called",
                "How many different tools were called in the time range.",
                at_once(calls.tools_called(SCOPE)),
                unit="locale",
                empty="0",
            ),
            stat(
                "Tools on offer",
                "How many tools the servers' catalogs have now.",
                at_once(servers.tools(OFFERED)),
                unit="locale",
            ),
            totals.count("Calls", SCOPE),
            totals.error_rate("Error rate", SCOPE),
            totals.average("Average duration", SCOPE),
            stat(
                "p95 duration",
                "What upstreams took at most for 95 of 100 calls.",
                at_once(calls.duration(SCOPE, 0.95)),
                unit="s",
                steps=LATENCY,
                first=GOOD,
                empty="no calls",
            ),
        ],
    )


def _rankings() -> Section:
    few = 15
    return Section(
        "Which tools",
        [
            ranking(
                "Calls per tool",
                "The tools with the most calls in the time range, approximately.",
                at_once(calls.most_called(SCOPE, few), NAME),
                unit="locale",
                links=drilldowns.tool(),
                height=12,
            ),
            ranking(
                "Error rate per tool",
                "The tools of which the highest share of calls failed; those that never failed are left out.",
                at_once(calls.most_failing(SCOPE, few), NAME),
                unit="percentunit",
                steps=FAILURES,
                first=GOOD,
                links=drilldowns.tool(),
                height=12,
            ),
            ranking(
                "Average duration per tool",
                "The tools that take the longest, on average.",
                at_once(calls.slowest(SCOPE, few), NAME),
                unit="s",
                steps=LATENCY,
                first=GOOD,
                links=drilldowns.tool(),
                height=12,
            ),
        ],
    )


def _table() -> Section:
    return Section(
        "Every tool",
        [
            table(
                "All tools",
                "Tools that were called in the time range; counts are approximate. _unknown is what no server offers.",
                [
                    rows(f"{calls.count(SCOPE, *BY)} > 0"),
                    rows(calls.failure_ratio(SCOPE, *BY)),
                    rows(calls.average(SCOPE, *BY)),
                    *(rows(calls.duration(SCOPE, share, *BY)) for share in (0.5, 0.95, 0.99)),
                ],
                [
                    Column("workspace", "Workspace"),
                    Column("server", "Server"),
                    Column("tool", "Tool", links=drilldowns.tool(drilldowns.row)),
                    Column("Value #A", "Calls", "locale", decimals=0),
                    Column("Value #B", "Failed", "percentunit", steps=FAILURES, decimals=2),
                    Column("Value #C", "Average", "s", steps=LATENCY),
                    Column("Value #D", "p50", "s"),
                    Column("Value #E", "p95", "s", steps=LATENCY),
                    Column("Value #F", "p99", "s"),
                ],
                sort="Calls",
            )
        ],
    )


def _over_time() -> Section:
    return Section(
        "Since when",
        [
            chart(
                "Calls by tool",
                "Tool calls a minute.",
                over_time(calls.per_minute(SCOPE, *BY), NAME),
                unit="cpm",
                stacked=True,
                links=drilldowns.tool(),
            ),
            chart(
                "Error rate by tool",
                "The share of calls that failed.",
                over_time(calls.failure_ratio_over_time(SCOPE, *BY), NAME),
                unit="percentunit",
                steps=FAILURES,
                links=drilldowns.tool(),
            ),
        ],
        _durations(),
        [
            chart(
                "Failures by tool and kind",
                "Failed calls a minute, and why they failed.",
                over_time(f"{calls.failures_per_minute(SCOPE, *BY, 'error_type')} > 0", f"{NAME}: {{{{error_type}}}}"),
                unit="cpm",
                stacked=True,
                width=24,
                links=[
                    drilldown(
                        Uid.LOGS,
                        "These calls",
                        **{name: drilldowns.SERIES(name) for name in (*BY, "error_type")},
                        status="error",
                    )
                ],
            )
        ],
    )


def _durations() -> list[Panel]:
    """How long tools take."""
    return [
        chart(
            "p95 by tool",
            "What upstreams took at most for 95 of 100 calls. A point is a single call, and leads to it.",
            over_time(calls.duration_over_time(SCOPE, 0.95, *BY), NAME, exemplar=True),
            unit="s",
            steps=LATENCY,
            links=drilldowns.tool(),
        ),
        heatmap(
            "Spread of durations",
            "How many calls took how long: two bands are two kinds of calls. A point is a single call.",
            buckets(calls.distribution(SCOPE)),
            unit="s",
            links=[drilldowns.all_calls()],
        ),
    ]


def _catalogs() -> Section:
    return Section(
        "Worth keeping",
        [
            table(
                "Catalogs",
                "Tools on offer, and how many nobody called in the time range. Every model reads the whole catalog.",
                [
                    rows(servers.tools(OFFERED, *calls.SERVER)),
                    rows(servers.tools_never_called(OFFERED)),
                    rows(servers.catalog_bytes(OFFERED, *calls.SERVER)),
                    rows(calls.count(OFFERED, *calls.SERVER)),
                ],
                [
                    Column("workspace", "Workspace"),
                    Column("server", "Server", links=drilldowns.server(drilldowns.row)),
                    Column("Value #A", "Tools", "locale"),
                    Column("Value #B", "Never called", "locale", decimals=0),
                    Column("Value #C", "Catalog", "bytes"),
                    Column("Value #D", "Calls", "locale", decimals=0),
                ],
                sort="Never called",
                width=12,
                height=8,
            ),
            chart(
                "Size of the catalogs",
                "What the descriptions of a server's tools take in tools/list.",
                over_time(servers.catalog_bytes(OFFERED, *calls.SERVER), "{{workspace}} / {{server}}"),
                unit="bytes",
                stacked=True,
                links=drilldowns.server(),
            ),
        ],
    )
