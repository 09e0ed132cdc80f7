"""Gateway: is Callscope itself healthy, what does it add to a call, and what does watching it cost."""

from dashboards import variables
from dashboards.board import board
from dashboards.boards import drilldowns, pipeline
from dashboards.fields import BAD, FAIR, GOOD, Steps
from dashboards.grafanalib_ext import Json, Panel
from dashboards.layout import Section
from dashboards.links import Uid, drilldown
from dashboards.panels import chart, heatmap, stat, states
from dashboards.promql import Scope
from dashboards.queries import calls, servers
from dashboards.queries import gateway as query
from dashboards.tables import Column, table
from dashboards.targets import at_once, buckets, over_time, rows
from gateway.observer.signals import CLIENT_OPERATION_DURATION, OVERHEAD

SCOPE = Scope("instance")
LAG: Steps = ((10, FAIR), (60, BAD))
"""Seconds: telemetry is meant to be fresh to two."""
LOOP_LAG: Steps = ((0.1, FAIR), (0.5, BAD))
OVERHEADS: Steps = ((0.02, FAIR), (0.1, BAD))


def gateway() -> Json:
    """Gateway internals."""
    return board(
        Uid.GATEWAY,
        "Telemetry's lag and loss, event loops, what the gateway adds to a call, and what scraping it costs.",
        [_answer(), _telemetry(), pipeline.on_their_way(), _overhead(), _requests(), _processes()],
        more=[variables.instance()],
        since="now-3h",
    )


def _answer() -> Section:
    return Section(
        "",
        [
            stat(
                "Telemetry lag",
                "How far the slowest sink is behind the calls.",
                at_once(query.worst_lag(SCOPE)),
                unit="s",
                steps=LAG,
                first=GOOD,
            ),
            stat(
                "Records lost",
                "Records of the time range that a sink lost. The ledger and the metrics should never lose one.",
                at_once(query.lost(SCOPE)),
                unit="locale",
                decimals=0,
                steps=((1, BAD),),
                first=GOOD,
            ),
            stat(
                "Event-loop lag",
                "The worst lag of an event loop in the last 15 seconds: calls wait as long.",
                at_once(query.worst_loop_lag(SCOPE)),
                unit="s",
                steps=LOOP_LAG,
                first=GOOD,
            ),
            stat(
                "Gateway overhead, p95",
                "What the gateway itself adds at most to 95 of 100 calls.",
                at_once(query.overhead(SCOPE, 0.95)),
                unit="s",
                steps=OVERHEADS,
                first=GOOD,
                empty="no calls",
            ),
            stat(
                "Gateway faults",
                "Calls of the time range that failed by the gateway's own fault, approximately.",
                at_once(query.faults(SCOPE)),
                unit="locale",
                decimals=0,
                steps=((1, BAD),),
                first=GOOD,
                links=[drilldown(Uid.LOGS, "These calls", status="error", error_type="gateway_error")],
            ),
            stat(
                "Observers",
                "Observers that Prometheus scrapes: one for each replica.",
                at_once(query.replicas(SCOPE)),
                unit="locale",
                steps=((1, GOOD),),
                first=BAD,
            ),
        ],
    )


def _telemetry() -> Section:
    return Section(
        "Is telemetry late, or lost",
        [
            chart(
                "Sink lag",
                "How long ago a sink had taken everything that stood in the journal.",
                over_time(query.lag(SCOPE), "{{instance}} {{sink}}"),
                unit="s",
                steps=LAG,
                width=8,
            ),
            chart(
                "Unread journal",
                "What stands in the journal and a sink has not read.",
                over_time(query.lag_bytes(SCOPE), "{{instance}} {{sink}}"),
                unit="bytes",
                width=8,
            ),
            chart(
                "Records lost by reason",
                "Records that were lost to a sink, and why; docs/metrics.md explains the reasons.",
                over_time(query.lost_over_time(SCOPE), "{{sink}}: {{reason}}"),
                unit="short",
                bars=True,
                stacked=True,
                width=8,
            ),
        ],
        _left_out(),
    )


def _left_out() -> list[Panel]:
    """What was not counted by its own name, or was deleted."""
    return [
        chart(
            "Series over budget",
            "Records that were counted under __other__, because a metric's series budget is used up.",
            over_time(query.overflow(SCOPE), "{{metric}}"),
            unit="short",
            bars=True,
            stacked=True,
            width=8,
        ),
        chart(
            "Calls with unknown usage",
            "Calls a minute while it was not known what is used of the plan's limit, and what became of them.",
            over_time(query.usage_unknown(SCOPE), "{{workspace}}: {{decision}}"),
            unit="cpm",
            stacked=True,
            width=8,
        ),
        chart(
            "Deleted from the ledger",
            "Calls that the ledger deleted because they were older than the plan's retention.",
            over_time(query.rows_deleted(SCOPE), "{{workspace}}"),
            unit="short",
            bars=True,
            stacked=True,
            width=8,
        ),
    ]


def _overhead() -> Section:
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    links = [drilldown(Uid.CALL, "Slow calls"), drilldowns.all_calls()]
    return Section(
        "What the gateway adds to a call",
        [
            chart(
                "Overhead",
                "The time that the gateway itself takes for a call: the total less the upstream's part.",
                *(
                    over_time(query.overhead_over_time(SCOPE, share), name, exemplar=True)
                    for name, share in shares.items()
                ),
                unit="s",
                steps=OVERHEADS,
                width=8,
                links=links,
            ),
            chart(
                "Phases, p95",
                "Each phase of a call; acquire, send, wait and receive are the upstream's part.",
                over_time(query.phases(SCOPE, 0.95), "{{phase}}", exemplar=True),
                unit="s",
                width=8,
                links=links,
            ),
            heatmap(
                "Spread of the overhead",
                "To how many calls the gateway added how much.",
                buckets(calls.distribution(SCOPE, OVERHEAD)),
                unit="s",
                width=8,
                links=links,
            ),
        ],
        [
            chart(
                "Event-loop lag by process",
                "The worst lag of the event loops of a kind of process, in 15 seconds.",
                over_time(query.loop_lag(SCOPE), "{{instance}} {{process}}"),
                unit="s",
                steps=LOOP_LAG,
            ),
            chart(
                "Calls in flight",
                "Calls that have started and not ended, by workspace.",
                over_time(servers.in_flight(SCOPE, "workspace"), "{{workspace}}"),
                unit="short",
                stacked=True,
                links=[drilldowns.workspace(Uid.SERVERS, "At which servers")],
            ),
        ],
    )


def _requests() -> Section:
    return Section(
        "Beside the calls",
        [
            chart(
                "Requests turned away",
                "Requests a minute that became no call: without a valid token, too large, malformed.",
                over_time(query.rejected(SCOPE), "{{reason}}"),
                unit="cpm",
                stacked=True,
            ),
            chart(
                "MCP requests of clients",
                "Requests a minute, by method.",
                over_time(query.operations(SCOPE), "{{mcp_method_name}}"),
                unit="cpm",
                stacked=True,
            ),
        ],
        [
            chart(
                "Duration of clients' requests, p95",
                "How long the gateway took to answer, by method.",
                over_time(query.operations_duration(SCOPE, 0.95), "{{mcp_method_name}}"),
                unit="s",
                width=8,
            ),
            chart(
                "Duration of requests to upstreams, p95",
                "How long upstreams took to answer, by method.",
                over_time(query.operations_duration(SCOPE, 0.95, CLIENT_OPERATION_DURATION), "{{mcp_method_name}}"),
                unit="s",
                width=8,
            ),
            chart(
                "Failed requests to upstreams",
                "Requests a minute that failed, by method and kind.",
                over_time(query.upstream_failures(SCOPE), "{{mcp_method_name}}: {{error_type}}"),
                unit="cpm",
                stacked=True,
                width=8,
            ),
        ],
    )


def _processes() -> Section:
    name = "{{instance}}"
    return Section(
        "What it costs",
        [
            chart("CPU", "Cores that an observer uses.", over_time(query.cpu(SCOPE), name), unit="short", width=6),
            chart(
                "Memory", "Memory that an observer holds.", over_time(query.memory(SCOPE), name), unit="bytes", width=6
            ),
            chart(
                "Open files",
                "The share of the file descriptors that an observer may open.",
                over_time(query.open_files(SCOPE), name),
                unit="percentunit",
                steps=((0.8, BAD),),
                width=6,
            ),
            stat(
                "Uptime",
                "How long ago the youngest observer started.",
                at_once(query.uptime(SCOPE)),
                unit="dtdurations",
                width=6,
                height=8,
            ),
        ],
        _scrapes(),
        _configuration(),
    )


def _scrapes() -> list[Panel]:
    """What scraping an observer costs, and whether it works."""
    name = "{{instance}}"
    return [
        chart(
            "Scrape duration",
            "How long Prometheus takes for a scrape of an observer.",
            over_time(query.scrape_duration(SCOPE), name),
            unit="s",
            steps=((2, FAIR), (5, BAD)),
            width=8,
        ),
        chart(
            "Samples of a scrape",
            "How many series an observer exposes.",
            over_time(query.scrape_samples(SCOPE), name),
            unit="short",
            width=8,
        ),
        states(
            "Scraped",
            "Whether Prometheus reached the observer.",
            over_time(query.scraped(SCOPE), name),
            names={1: ("up", GOOD), 0: ("down", BAD)},
            width=8,
        ),
    ]


def _configuration() -> list[Panel]:
    """Which version and which configuration hold."""
    return [
        table(
            "Versions",
            "How many observers run which version.",
            [rows(query.versions(SCOPE))],
            [Column("version", "Version"), Column("Value", "Observers", "locale")],
            sort="Observers",
            width=12,
            height=6,
        ),
        table(
            "Configuration reloads",
            "Changes of the configuration file in the time range that were taken over, and that were refused.",
            [rows(query.reloads(SCOPE))],
            [Column("status", "Outcome"), Column("Value", "Reloads", "locale", decimals=0)],
            sort="Reloads",
            width=6,
            height=6,
        ),
        stat(
            "Configuration file",
            "Whether the file is the one that holds; a refused one is as if it had not been written.",
            at_once(query.configured(SCOPE), "{{instance}}"),
            unit="none",
            steps=((1, GOOD),),
            first=BAD,
            width=6,
            height=6,
            names={1: "holds", 0: "refused"},
        ),
    ]
