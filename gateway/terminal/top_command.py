"""`callscope top`: a workspace as it is now, again and again."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import click
from rich.console import Group
from rich.live import Live

from gateway.analytics.models import CallGroups, CallPage, Overview, Timeline
from gateway.terminal.api import ApiClient, Parameters, UnansweredError
from gateway.terminal.exit_codes import reports_errors
from gateway.terminal.formatting import zone_of
from gateway.terminal.observer_connection import ObserverConnection
from gateway.terminal.options import ONE_WORKSPACE, connected, filtered, ranged
from gateway.terminal.screen import Terminal, terminal
from gateway.terminal.top_view import NOW_S, Caption, Outage, TopData, render

SILENT_S: Final = 5.0
"""Then an observer is away: while it is started again, its connections are taken and not answered."""
PERIOD: Final = "5m"
RECENT: Final = 500
"""Of so many calls the slowest are shown."""
FAILING: Final = 100
ONCE: Final = (100, 40)
"""The least columns and lines of a frame that is no terminal's."""


@click.command()
@click.option("--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="One frame, and end: what it does as well where output is no terminal.")
@ONE_WORKSPACE
@reports_errors
@connected
@ranged(PERIOD)
@filtered
def top(
    connection: ObserverConnection,
    workspace: str | None,
    span: Parameters,
    filters: Parameters,
    interval: float,
    *,
    once: bool,
) -> None:
    """A workspace as it is now, in a live view: Ctrl-C ends it.

    Calls a second (of the last 10 s), errors and durations of the range, by tool; the slowest calls, and those that
    failed last. While the observer is away, for instance because it is restarted, it says so and goes on.
    """
    caption = Caption(connection.one(workspace), _words(dict(span)), zone_of(dict(span)["tz"]))
    console = terminal()
    with ApiClient(connection, answer_s=SILENT_S) as api:
        if console.is_terminal and not once:
            _live(lambda: look(api, caption.workspace, span, filters), caption, console, interval)
        else:
            size = (console.width, ONCE[1]) if console.is_terminal else ONCE
            console.print(
                render(look(api, caption.workspace, span, filters), caption, now=_now(), away=None, size=size)
            )


def look(api: ApiClient, workspace: str, span: Parameters, filters: Parameters) -> TopData:
    """Ask for everything that a frame shows.

    Raises:
        UnansweredError: the observer is away.
        CallscopeError: the question is refused.
    """
    tz = [pair for pair in span if pair[0] == "tz"]
    asked = [*span, *filters]
    by_tool = ("by", "server,tool")
    others = [pair for pair in filters if pair[0] != "status"]
    may_fail = len(others) == len(filters) or ("status", "error") in filters
    failing = [*span, *others, ("status", "error"), ("limit", str(FAILING))]
    return TopData(
        overview=api.get(workspace, "/analytics/overview", Overview, asked),
        tools=api.get(workspace, "/analytics/groups", CallGroups, [*asked, by_tool]).groups,
        calls_of_now=api.get(
            workspace, "/analytics/groups", CallGroups, [("period", f"{NOW_S}s"), *tz, *filters, by_tool]
        ).groups,
        timeline=api.get(workspace, "/analytics/timeline", Timeline, asked),
        recent=api.get(workspace, "/analytics/calls", CallPage, [*asked, ("limit", str(RECENT))]).calls,
        failing=api.get(workspace, "/analytics/calls", CallPage, failing).calls if may_fail else [],
    )


def _live(ask: Callable[[], TopData], caption: Caption, console: Terminal, interval: float) -> None:
    view, away = ask(), None  # what is wrong from the beginning is no interruption

    def shown() -> Group:
        return render(view, caption, now=_now(), away=away, size=console.size)

    with Live(shown(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(shown(), refresh=True)
            time.sleep(interval)
            asked = _now()
            try:
                view, away = ask(), None
            except UnansweredError as error:
                away = Outage(asked if away is None else away.since, error.reason)


def _words(span: dict[str, str]) -> str:
    if "period" in span:
        return span["period"] if span["period"] in ("today", "week", "month") else f"last {span['period']}"
    return f"from {span.get('from', '')} to {span.get('to', 'now')}"


def _now() -> datetime:
    return datetime.now(UTC)
