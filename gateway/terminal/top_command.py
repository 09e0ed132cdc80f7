"""`callscope top`: a live view of a workspace."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import click
from rich.console import Group
from rich.live import Live

from gateway.analytics.models import CallGroups, CallPage, Overview, Timeline
from gateway.terminal.api_client import Answer, ApiClient, Parameters, UnansweredError
from gateway.terminal.exit_codes import reports_errors
from gateway.terminal.formatting import Terminal, terminal, zone_of
from gateway.terminal.options import ONE_WORKSPACE, connected, filtered, ranged
from gateway.terminal.top_view import NOW_S, Caption, Outage, TopData, render

TIMEOUT_S: Final = 5.0
"""A restarting observer accepts connections and does not answer: after this time it counts as away."""
PERIOD: Final = "5m"
RECENT: Final = 500
"""The slowest of so many calls are shown."""
FAILED: Final = 100
ONCE: Final = (100, 40)
"""Columns and lines of a view that is not shown in a terminal."""


@click.command()
@click.option("--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print the view once and end, as if output were not a terminal.")
@ONE_WORKSPACE
@reports_errors
@connected
@ranged(PERIOD)
@filtered
def top(
    api: ApiClient, workspace: str | None, span: Parameters, filters: Parameters, interval: float, *, once: bool
) -> None:
    """A live view of a workspace, until Ctrl-C.

    Shows calls per second (of the last 10 s), errors and durations by tool, the slowest calls, and the calls that
    failed last. While the observer does not answer, the view says since when and keeps its last state.
    """
    options = dict(span)
    if "period" in options:
        range_ = options["period"] if options["period"] in ("today", "week", "month") else f"last {options['period']}"
    else:
        range_ = f"from {options.get('from', '')} to {options.get('to', 'now')}"
    caption = Caption(api.one(workspace), range_, zone_of(options["tz"]))
    console = terminal()

    def fetch() -> TopData:
        return load_data(api, caption.workspace, span, filters)

    if console.is_terminal and not once:
        _run_live(fetch, caption, console, interval)
    else:
        size = (console.width, ONCE[1]) if console.is_terminal else ONCE
        console.print(render(fetch(), caption, now=datetime.now(UTC), outage=None, size=size), width=size[0])


def load_data(api: ApiClient, workspace: str, span: Parameters, filters: Parameters) -> TopData:
    """Ask the API for everything that a view shows.

    Raises:
        UnansweredError: the observer does not answer now.
        CallscopeError: the request is rejected.
    """

    def get(path: str, answer: type[Answer], parameters: Parameters) -> Answer:
        return api.get(workspace, f"/analytics/{path}", answer, parameters, timeout_s=TIMEOUT_S)

    selected = [*span, *filters]
    now = [("period", f"{NOW_S}s"), *(pair for pair in span if pair[0] == "tz"), *filters]
    by_tool = ("by", "server,tool")
    others = [pair for pair in filters if pair[0] != "status"]
    failed = [*span, *others, ("status", "error"), ("limit", str(FAILED))]
    failed_selected = len(others) == len(filters) or ("status", "error") in filters
    return TopData(
        overview=get("overview", Overview, selected),
        tools=get("groups", CallGroups, [*selected, by_tool]).groups,
        calls_of_now=get("groups", CallGroups, [*now, by_tool]).groups,
        timeline=get("timeline", Timeline, selected),
        recent=get("calls", CallPage, [*selected, ("limit", str(RECENT))]).calls,
        failed=get("calls", CallPage, failed).calls if failed_selected else [],
    )


def _run_live(fetch: Callable[[], TopData], caption: Caption, console: Terminal, interval: float) -> None:
    data, outage = fetch(), None  # an error at the start ends the command

    def view() -> Group:
        return render(data, caption, now=datetime.now(UTC), outage=outage, size=console.size)

    with Live(view(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(view(), refresh=True)
            time.sleep(interval)
            asked_at = datetime.now(UTC)
            try:
                data, outage = fetch(), None
            except UnansweredError as error:
                outage = Outage(asked_at if outage is None else outage.since, error.reason)
