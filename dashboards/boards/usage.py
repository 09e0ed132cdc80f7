"""Usage: calls against the plan's limit, and when it will be reached."""

from dashboards.board import board
from dashboards.boards import drilldowns
from dashboards.fields import CALM, FAIR, GOOD, SHARE_OF_LIMIT, texts
from dashboards.grafanalib_ext import Json, Panel
from dashboards.layout import Section
from dashboards.links import Uid
from dashboards.panels import chart, gauge, ranking, stat
from dashboards.promql import Scope, top, with_names
from dashboards.queries import calls
from dashboards.queries import usage as query
from dashboards.tables import Column, table
from dashboards.targets import at_once, over_time, rows

SCOPE = Scope("workspace")
NAME = "{{workspace}}"
MONTH = "now/M"
NOT_THIS_MONTH = {query.NOT_REACHED: "not this month"}


def usage() -> Json:
    """Usage of the plan."""
    return board(
        Uid.USAGE,
        "Calls against the plan's limit, exactly, from the ledger; and when the limit will be reached at this pace.",
        [_answer(), _forecast(), _what_for()],
        filters=("workspace",),
        since="now-30d",
        refresh="5m",
    )


def _answer() -> Section:
    links = [drilldowns.workspace(Uid.MEMBERS, "Who calls"), drilldowns.workspace(Uid.TOOLS, "What is called")]
    return Section(
        "",
        [
            gauge(
                "Used of the limit",
                "This month's calls (UTC) as a share of what the plan allows. Calls that a limit refused do not count.",
                at_once(query.share(SCOPE), NAME),
                unit="percentunit",
                steps=SHARE_OF_LIMIT,
                links=links,
            ),
            stat(
                "Calls of this month",
                "This month's calls that count against the limit, exactly.",
                at_once(query.used(SCOPE), NAME),
                unit="locale",
                width=6,
                links=links,
                height=8,
            ),
            stat(
                "Limit reached",
                "When the limit is reached if the month goes on as it went so far.",
                at_once(query.reached(SCOPE), NAME),
                unit="dateTimeAsLocal",
                steps=((0, FAIR),),
                first=GOOD,
                width=6,
                links=links,
                names=NOT_THIS_MONTH,
                height=8,
            ),
            stat(
                "Calls left",
                "Calls that the plan still allows this month.",
                at_once(query.remaining(SCOPE), NAME),
                unit="locale",
                steps=((1, CALM),),
                first="red",
                width=6,
                links=links,
                empty="unlimited",
                height=8,
            ),
        ],
    )


def _forecast() -> Section:
    links = [drilldowns.workspace(Uid.MEMBERS, "Who calls"), drilldowns.workspace(Uid.TOOLS, "What is called")]
    return Section(
        "When",
        [
            chart(
                "Calls against the limit",
                "The month's calls, what they come to at the month's end at this pace, and the limit.",
                over_time(query.used(SCOPE), f"{NAME}: used"),
                over_time(query.projected(SCOPE), f"{NAME}: at the month's end"),
                over_time(query.limit(SCOPE), f"{NAME}: limit"),
                unit="locale",
                height=10,
                links=links,
            ),
            chart(
                "Calls each day",
                "Calls of the 24 hours before each point, refused ones too, approximately. Reads a recording rule.",
                over_time(calls.count_each_day(SCOPE, "workspace"), NAME),
                unit="locale",
                stacked=True,
                bars=True,
                height=10,
                links=links,
                interval="1d",
            ),
        ],
        [_plans()],
    )


def _plans() -> Panel:
    """Every workspace's plan and pace, side by side."""
    return table(
        "All workspaces",
        "Each workspace's plan and pace. Without a limit, the columns that need one are empty.",
        [
            rows(query.used(SCOPE)),
            rows(query.plan(SCOPE)),
            rows(query.share(SCOPE)),
            rows(query.projected_share(SCOPE)),
            rows(query.reached(SCOPE)),
            rows(query.calls_a_day(SCOPE)),
            rows(query.calls_a_day_left(SCOPE)),
            rows(query.period_end_ms(SCOPE)),
        ],
        [
            Column("workspace", "Workspace", links=[drilldowns.workspace(Uid.MEMBERS, "Who calls", drilldowns.row)]),
            Column("plan", "Plan"),
            Column("Value #A", "Used", "locale"),
            Column("Value #B", "Limit", "locale"),
            Column("Value #C", "Used of it", "percentunit", steps=SHARE_OF_LIMIT),
            Column("Value #D", "At the month's end", "percentunit", steps=SHARE_OF_LIMIT),
            Column("Value #E", "Reached", "dateTimeAsLocal", mappings=texts(NOT_THIS_MONTH)),
            Column("Value #F", "Calls a day", "locale", decimals=0),
            Column("Value #G", "Left a day", "locale", decimals=0),
            Column("Value #H", "Month ends", "dateTimeAsLocal"),
        ],
        sort="Used of it",
        height=8,
    )


def _what_for() -> Section:
    month = "in this month of the dashboard's time zone, approximately. Reads a recording rule."
    dates = "If the dashboard shows chosen dates instead of the time up to now, it is those."
    by_member = with_names(SCOPE, f"{calls.count_over_weeks(SCOPE, *calls.MEMBER)} > 0")
    return Section(
        "What for",
        [
            ranking(
                "Members of this month",
                f"Members and bots with the most calls {month} {dates}",
                at_once(top(15, by_member), f"{NAME} / {{{{name}}}}"),
                unit="locale",
                links=drilldowns.member(),
                width=12,
                height=11,
                since=MONTH,
            ),
            ranking(
                "Tools of this month",
                f"Tools with the most calls {month} {dates}",
                at_once(
                    top(15, f"{calls.count_over_weeks(SCOPE, *calls.TOOL)} > 0"),
                    f"{NAME} / {{{{server}}}} / {{{{tool}}}}",
                ),
                unit="locale",
                links=drilldowns.tool(),
                width=12,
                height=11,
                since=MONTH,
            ),
        ],
    )
