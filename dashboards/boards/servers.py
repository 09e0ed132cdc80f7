"""Servers: is each of them there, what is asked of it, how quick is it and how often does it fail."""

from dashboards.board import board
from dashboards.boards import drilldowns, totals
from dashboards.fields import BAD, FAILURES, FAIR, GOOD, LATENCY
from dashboards.grafanalib_ext import Json, Panel
from dashboards.layout import Section
from dashboards.links import Uid, drilldown, of_series
from dashboards.panels import chart, heatmap, stat, states
from dashboards.promql import Scope
from dashboards.queries import calls
from dashboards.queries import servers as query
from dashboards.tables import Column, table
from dashboards.targets import at_once, buckets, over_time, rows

SCOPE = Scope("workspace", "server")
BY = calls.SERVER
NAME = "{{workspace}} / {{server}}"
SENT = "Without calls that the gateway refused. Reads recording rules."


def servers() -> Json:
    """Server health."""
    return board(
        Uid.SERVERS,
        "Availability, calls, durations and failures of each upstream server.",
        [_answer(), _now(), _load(), _failures()],
        filters=("workspace", "server"),
        since="now-6h",
    )


def _answer() -> Section:
    return Section(
        "",
        [
            stat(
                "Servers up",
                "Servers that answered when they were last asked, counted in each workspace.",
                at_once(query.up_count(SCOPE)),
                unit="locale",
            ),
            stat(
                "Servers down",
                "Servers that did not answer when they were last asked.",
                at_once(query.down_count(SCOPE)),
                unit="locale",
                steps=((1, BAD),),
                first=GOOD,
            ),
            totals.count("Calls to servers", SCOPE),
            totals.error_rate("Error rate of servers", SCOPE),
            totals.average("Average latency", SCOPE),
            stat(
                "Calls in flight",
                "Calls that have started and not ended.",
                at_once(query.in_flight(SCOPE)),
                unit="locale",
            ),
        ],
    )


def _now() -> Section:
    return Section(
        "Are they there",
        [
            states(
                "Up or down",
                "Whether a server answered when it was last asked; nothing before it was asked.",
                over_time(query.up(SCOPE), NAME),
                names={1: ("up", GOOD), 0: ("down", BAD)},
                links=drilldowns.server(),
            )
        ],
        [
            table(
                "All servers",
                "Each server's state now, and its calls in the time range; counts are approximate.",
                [
                    rows(query.up(SCOPE)),
                    rows(query.availability(SCOPE)),
                    rows(query.last_success(SCOPE)),
                    rows(calls.count(SCOPE, *BY)),
                    rows(calls.failure_ratio(SCOPE, *BY)),
                    rows(calls.average(SCOPE, *BY)),
                    *(rows(calls.duration(SCOPE, share, *BY)) for share in (0.5, 0.95, 0.99)),
                    rows(query.tools(SCOPE, *BY)),
                ],
                [
                    Column("workspace", "Workspace"),
                    Column("server", "Server", links=drilldowns.server(drilldowns.row)),
                    Column("Value #A", "Up", "bool_yes_no", steps=((1, GOOD),), first=BAD),
                    Column("Value #B", "Time up", "percentunit", steps=((0.99, FAIR), (0.999, GOOD)), first=BAD),
                    Column("Value #C", "Last answer", "dateTimeFromNow"),
                    Column("Value #D", "Calls", "locale", decimals=0),
                    Column("Value #E", "Failed", "percentunit", steps=FAILURES, decimals=2),
                    Column("Value #F", "Average", "s", steps=LATENCY),
                    Column("Value #G", "p50", "s"),
                    Column("Value #H", "p95", "s", steps=LATENCY),
                    Column("Value #I", "p99", "s"),
                    Column("Value #J", "Tools", "locale"),
                ],
                sort="Calls",
                height=9,
            )
        ],
    )


def _load() -> Section:
    return Section(
        "Are they quick",
        _latencies(),
        [
            chart(
                "Time to the first byte",
                "p95 of the time in which the server works, without connecting and receiving; of all workspaces.",
                over_time(query.waiting(Scope("server"), 0.95), "{{server}}", exemplar=True),
                unit="s",
                steps=LATENCY,
                width=8,
                links=[drilldown(Uid.LOGS, "Calls of this server", server=of_series("server"))],
            ),
            chart(
                "Calls by server",
                "Tool calls a minute.",
                over_time(calls.per_minute(SCOPE, *BY), NAME),
                unit="cpm",
                stacked=True,
                width=8,
                links=drilldowns.server(),
            ),
            chart(
                "In flight by server",
                "Calls that have started and not ended: they pile up at a server that does not keep up.",
                over_time(query.in_flight(SCOPE, *BY), NAME),
                unit="short",
                stacked=True,
                width=8,
                links=drilldowns.server(),
            ),
        ],
    )


def _latencies() -> list[Panel]:
    """How long servers take, on average, at most and each call."""
    return [
        chart(
            "Average latency by server",
            f"What a server took for a call, on average. {SENT}",
            over_time(query.average_latency(SCOPE), NAME),
            unit="s",
            steps=LATENCY,
            width=8,
            links=drilldowns.server(),
            interval=query.RECORDED_EVERY,
        ),
        chart(
            "p95 latency by server",
            f"What a server took at most for 95 of 100 calls. {SENT}",
            over_time(query.latency(SCOPE, 0.95), NAME),
            unit="s",
            steps=LATENCY,
            width=8,
            links=drilldowns.server(),
            interval=query.RECORDED_EVERY,
        ),
        heatmap(
            "Spread of latencies",
            "How many calls took how long, refused ones (0 s) too. A point is a single call, and leads to it.",
            buckets(calls.distribution(SCOPE)),
            unit="s",
            width=8,
            links=[drilldowns.all_calls()],
        ),
    ]


def _failures() -> Section:
    return Section(
        "Do they fail",
        [
            chart(
                "Error rate by server",
                "The share of calls that failed.",
                over_time(calls.failure_ratio_over_time(SCOPE, *BY), NAME),
                unit="percentunit",
                steps=FAILURES,
                links=drilldowns.server(),
            ),
            chart(
                "Failures by server and kind",
                "Failed calls a minute, and why they failed.",
                over_time(f"{calls.failures_per_minute(SCOPE, *BY, 'error_type')} > 0", f"{NAME}: {{{{error_type}}}}"),
                unit="cpm",
                stacked=True,
                links=[
                    drilldown(
                        Uid.LOGS,
                        "These calls",
                        **{name: of_series(name) for name in (*BY, "error_type")},
                        status="error",
                    )
                ],
            ),
        ],
    )
