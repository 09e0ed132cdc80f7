"""Members: who calls, how often, with which tools; is a bot calling the right ones, too often, or failing."""

from dashboards.board import board
from dashboards.boards import drilldowns, totals
from dashboards.fields import FAILURES, FAIR, GOOD, LATENCY
from dashboards.grafanalib_ext import Json, Panel
from dashboards.layout import Section
from dashboards.links import Uid
from dashboards.panels import chart, ranking, stat
from dashboards.promql import Scope
from dashboards.queries import calls
from dashboards.queries import members as query
from dashboards.tables import Column, table
from dashboards.targets import at_once, over_time, rows

SCOPE = Scope("workspace", "server", "tool", "token")
CONFIGURED = Scope("workspace", "token")
NAME = "{{workspace}} / {{name}}"


def members() -> Json:
    """Member activity."""
    return board(
        Uid.MEMBERS,
        "Calls of each member and bot by name, the tools that they use, and when.",
        [_answer(), _who(), _timeline(), _tools()],
        filters=("workspace", "server", "tool", "member"),
    )


def _answer() -> Section:
    return Section(
        "",
        [
            stat(
                "Active members",
                "Members and bots that called a tool in the time range. Reads a recording rule.",
                at_once(calls.active_members(CONFIGURED)),
                unit="locale",
            ),
            stat(
                "Tokens",
                "Members and bots in the configuration.",
                at_once(query.configured(CONFIGURED)),
                unit="locale",
            ),
            stat(
                "Idle tokens",
                "Tokens that sent no request in the time range: they could be revoked.",
                at_once(query.idle(CONFIGURED)),
                unit="locale",
                steps=((1, FAIR),),
                first=GOOD,
            ),
            totals.count("Calls by members", SCOPE),
            stat(
                "Calls by bots",
                "The share of the calls that bots made.",
                at_once(query.share_of_bots(SCOPE)),
                unit="percentunit",
                decimals=1,
                empty="no calls",
            ),
            totals.error_rate("Error rate of members", SCOPE),
        ],
    )


def _who() -> Section:
    return Section(
        "Who",
        [
            ranking(
                "Calls per member",
                "The members and bots with the most calls in the time range, approximately.",
                at_once(query.most_active(SCOPE, 15), NAME),
                unit="locale",
                links=drilldowns.member(),
                height=12,
                width=6,
            ),
            ranking(
                "Error rate per member",
                "The members of whose calls the highest share failed; those without a failure are left out.",
                at_once(query.most_failing(SCOPE, 15), NAME),
                unit="percentunit",
                steps=FAILURES,
                first=GOOD,
                links=drilldowns.member(),
                height=12,
                width=6,
            ),
            _everybody(),
        ],
    )


def _everybody() -> Panel:
    """Every member's numbers, side by side."""
    return table(
        "All members",
        "Who called a tool in the time range; counts are approximate. Who is gone is shown by the token's id.",
        [
            rows(f"{query.count(SCOPE)} > 0"),
            rows(query.failure_ratio(SCOPE)),
            rows(query.average(SCOPE)),
            rows(query.duration(SCOPE, 0.95)),
            rows(query.tools_used(SCOPE)),
            rows(query.last_used(CONFIGURED)),
        ],
        [
            Column("name", "Member", links=drilldowns.member(drilldowns.row)),
            Column("workspace", "Workspace"),
            Column("token", "Token"),
            Column("Value #A", "Calls", "locale", decimals=0),
            Column("Value #B", "Failed", "percentunit", steps=FAILURES, decimals=2),
            Column("Value #C", "Average", "s", steps=LATENCY),
            Column("Value #D", "p95", "s", steps=LATENCY),
            Column("Value #E", "Tools", "locale"),
            Column("Value #F", "Last request", "dateTimeFromNow"),
        ],
        sort="Calls",
        width=12,
        height=12,
    )


def _timeline() -> Section:
    return Section(
        "When",
        [
            chart(
                "Activity",
                "Tool calls a minute of each member.",
                over_time(query.per_minute(SCOPE), NAME),
                unit="cpm",
                stacked=True,
                bars=True,
                width=24,
                height=9,
                links=drilldowns.member(),
            )
        ],
        [
            chart(
                "Failures by member",
                "Failed calls a minute of each member.",
                over_time(f"{query.failures_per_minute(SCOPE)} > 0", NAME),
                unit="cpm",
                stacked=True,
                bars=True,
                links=drilldowns.member(),
            ),
            chart(
                "p95 by member",
                "What upstreams took at most for 95 of 100 calls. A point is a single call, and leads to it.",
                over_time(query.duration_over_time(SCOPE, 0.95), NAME, exemplar=True),
                unit="s",
                steps=LATENCY,
                links=drilldowns.member(),
            ),
        ],
    )


def _tools() -> Section:
    return Section(
        "With which tools",
        [
            table(
                "Most used tools per member",
                "Of each member, the five tools with the most calls in the time range, approximately.",
                [rows(query.favorites(SCOPE, 5))],
                [
                    Column("name", "Member"),
                    Column("workspace", "Workspace"),
                    Column("token", "Token"),
                    Column("server", "Server"),
                    Column("tool", "Tool", links=drilldowns.members_tool(drilldowns.row)),
                    Column("Value", "Calls", "locale", decimals=0),
                ],
                sort="Calls",
                width=16,
            ),
            ranking(
                "Calls that a limit refused",
                "Calls of the time range that were over a member's rate limit or the plan's, approximately.",
                at_once(query.refused(SCOPE), NAME),
                unit="locale",
                steps=((1, FAIR),),
                first=GOOD,
                links=drilldowns.member(),
                height=10,
            ),
        ],
    )
