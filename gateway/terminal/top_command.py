"""`callscope top`: a live view of a workspace."""

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.console import Group
from rich.live import Live

from gateway.analytics.models import CallGroups, CallPage, CallSummary, Overview, Timeline
from gateway.terminal.api_client import Answer, ApiClient, Parameters, UnansweredError
from gateway.terminal.formatting import Terminal, terminal, zone_of
from gateway.terminal.options import CONNECTION, FILTERS, RANGE, WORKSPACE, connected, filters, span
from gateway.terminal.top_view import NOW_S, Caption, Outage, TopData, render

TIMEOUT_S: Final = 5.0
"""A restarting observer accepts connections and does not answer: after this time it counts as away."""
RECENT: Final = 500
"""The slowest of so many calls are shown."""
FAILED: Final = 100
ONCE: Final = (100, 40)
"""Columns and lines of a view that is not shown in a terminal."""


@click.command()
@click.option("--interval", type=click.FloatRange(min=0.1), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print the view once and end, as if output were not a terminal.")
@WORKSPACE
@CONNECTION
@RANGE
@FILTERS
def top(interval: float, workspace: str | None, *, once: bool, **options: Any) -> None:
    """A live view of a workspace, until Ctrl-C; by default of the last 5 minutes.

    Shows calls per second (of the last 10 s), errors and durations by tool, the slowest calls, and the calls that
    failed last. While the observer does not answer, the view says since when and keeps its last state.
    """
    range_, selected = span(options, "5m"), filters(options)
    console = terminal()
    with connected(options, timeout_s=TIMEOUT_S) as api:
        caption = Caption(api.one(workspace), _describe(dict(range_)), zone_of(options["tz"]))

        def fetch() -> TopData:
            return load_data(api, caption.workspace, range_, selected)

        if console.is_terminal and not once:
            _run_live(fetch, caption, console, interval)
        else:
            size = (console.width, ONCE[1]) if console.is_terminal else ONCE
            console.print(render(fetch(), caption, now=datetime.now(UTC), outage=None, size=size), width=size[0])


def _describe(range_: Mapping[str, str]) -> str:
    period = range_.get("period")
    if period is None:
        return f"from {range_.get('from', '')} to {range_.get('to', 'now')}"
    return period if period in ("today", "week", "month") else f"last {period}"


def load_data(api: ApiClient, workspace: str, range_: Parameters, selected: Parameters) -> TopData:
    """Ask the API for everything that the view shows.

    Raises:
        UnansweredError: the observer does not answer now.
        CallscopeError: the request is rejected.
    """

    def get(path: str, answer: type[Answer], *parameters: tuple[str, str]) -> Answer:
        return api.get(workspace, f"/analytics/{path}", answer, parameters)

    by_tool = ("by", "server,tool")
    now = [("period", f"{NOW_S}s"), *(pair for pair in range_ if pair[0] == "tz")]
    others = [pair for pair in selected if pair[0] != "status"]
    failed: Sequence[CallSummary] = []
    if others == selected or ("status", "error") in selected:
        failed = get("calls", CallPage, *range_, *others, ("status", "error"), ("limit", str(FAILED))).calls
    return TopData(
        overview=get("overview", Overview, *range_, *selected),
        tools=get("groups", CallGroups, *range_, *selected, by_tool).groups,
        calls_of_now=get("groups", CallGroups, *now, *selected, by_tool).groups,
        timeline=get("timeline", Timeline, *range_, *selected),
        recent=get("calls", CallPage, *range_, *selected, ("limit", str(RECENT))).calls,
        failed=failed,
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
