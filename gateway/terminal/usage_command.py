"""`callscope usage`: each workspace's calls of this month against its plan's limit."""

from collections.abc import Sequence
from typing import Any, Final

import click
import msgspec
from rich.text import Text

from gateway.analytics.models import WorkspaceUsage
from gateway.terminal.formatting import NOTHING, numbers, table, terminal, words
from gateway.terminal.options import CONNECTION, connected

HEADINGS: Final = ("workspace", "tier", "period", "used", "limit", "remaining", "", "projected", "exhausted on")
TEXT_COLUMNS: Final = 3
BAR_COLUMNS: Final = 10
WARNING: Final = 0.8
"""Part of the limit from which the bar is yellow; at the limit it is red."""
WIDE: Final = 100
"""Columns of a terminal that has room for the period and the bar."""


@click.command()
@click.option("--workspace", "workspaces", multiple=True, metavar="SLUG", help="Repeatable; all by default.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array with one element for each workspace.")
@CONNECTION
def usage(workspaces: Sequence[str], *, as_json: bool, **options: Any) -> None:
    """This month's calls against the plan's limit.

    Shows the calls so far, the projection for the whole month, and the day on which the limit will be reached. The
    month is a calendar month in UTC. Calls that were rejected because of a limit do not count.
    """
    with connected(options) as api:
        slugs = api.several(tuple(dict.fromkeys(workspaces)))
        found = {slug: api.get(slug, "/analytics/usage", WorkspaceUsage) for slug in slugs}
    if as_json:
        answer = [{"workspace_id": slug, **msgspec.to_builtins(each)} for slug, each in found.items()]
        click.echo(msgspec.json.format(msgspec.json.encode(answer)))
    else:
        console = terminal()
        shown = [i for i, heading in enumerate(HEADINGS) if console.width >= WIDE or heading not in ("period", "")]
        columns = [words(HEADINGS[i]) if i < TEXT_COLUMNS else numbers(HEADINGS[i]) for i in shown]
        rows = [_row(slug, each) for slug, each in found.items()]
        console.print(table(columns, ([row[i] for i in shown] for row in rows)))


def _row(slug: str, workspace: WorkspaceUsage) -> Sequence[Text | str]:
    calls = workspace.usage.mcp_proxy_calls
    return (
        slug,
        workspace.tier,
        workspace.period,
        f"{calls.used:,}",
        "unlimited" if calls.limit is None else f"{calls.limit:,}",
        NOTHING if calls.remaining is None else f"{calls.remaining:,}",
        bar(calls.used, calls.limit),
        f"{calls.projected:,}",
        Text(calls.exhausted_on or NOTHING, style="red" if calls.exhausted_on else ""),
    )


def bar(used: int, limit: int | None) -> Text:
    """The used part of the limit; empty without a limit."""
    if limit is None:
        return Text("")
    share = min(used / limit, 1.0) if limit else 1.0
    filled = round(share * BAR_COLUMNS) or (1 if used else 0)
    color = "red" if used >= limit else "yellow" if share >= WARNING else "green"
    return Text.assemble(("█" * filled, color), ("░" * (BAR_COLUMNS - filled), "dim"))
