"""`callscope usage`: each workspace's calls of this month against its plan's limit."""

from collections.abc import Sequence
from typing import Final

import click
import msgspec
from rich.text import Text

from gateway.analytics.models import WorkspaceUsage
from gateway.terminal.api import ApiClient
from gateway.terminal.exit_codes import reports_errors
from gateway.terminal.formatting import NOTHING, count
from gateway.terminal.observer_connection import ObserverConnection
from gateway.terminal.options import connected
from gateway.terminal.screen import fitted, terminal

BAR_COLUMNS: Final = 10
WARNING: Final = 0.8
"""Of the limit: the bar is yellow from here on, and red when it is reached."""
HEADINGS: Final = ("workspace", "tier", "period", "used", "limit", "remaining", "", "projected", "exhausted on")


@click.command()
@click.option("--workspace", "workspaces", multiple=True, metavar="SLUG", help="Which; repeatable, all by default.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, one element for each workspace.")
@reports_errors
@connected
def usage(connection: ObserverConnection, workspaces: Sequence[str], *, as_json: bool) -> None:
    """This month's calls against the plan's limit.

    How many there are, how many it will be, and when the limit is reached if it goes on like that. The month is one
    in UTC. Calls that a limit refused do not count.
    """
    found = {}
    with ApiClient(connection) as api:
        for workspace in connection.several(tuple(dict.fromkeys(workspaces))):
            found[workspace] = api.get(workspace, "/analytics/usage", WorkspaceUsage)
    if as_json:
        answer = [{"workspace_id": slug, **msgspec.to_builtins(each)} for slug, each in found.items()]
        click.echo(msgspec.json.format(msgspec.json.encode(answer)))
        return
    console = terminal()
    rows = [_row(slug, each) for slug, each in found.items()]
    expendable = ("period", "", "tier", "remaining")
    console.print(fitted(HEADINGS, rows, console.width, words=HEADINGS[:3], expendable=expendable))


def _row(workspace: str, usage: WorkspaceUsage) -> Sequence[Text | str]:
    calls = usage.usage.mcp_proxy_calls
    return (
        workspace,
        usage.tier,
        usage.period,
        count(calls.used),
        count(calls.limit),
        NOTHING if calls.remaining is None else count(calls.remaining),
        bar(calls.used, calls.limit),
        count(calls.projected),
        Text(calls.exhausted_on or NOTHING, style="red" if calls.exhausted_on else ""),
    )


def bar(used: int, limit: int | None) -> Text:
    """The used part of the limit; empty where there is none."""
    if limit is None:
        return Text("")
    share = min(used / limit, 1.0) if limit else 1.0
    filled = round(share * BAR_COLUMNS) or (1 if used else 0)
    colour = "red" if used >= limit else "yellow" if share >= WARNING else "green"
    return Text.assemble(("█" * filled, colour), ("░" * (BAR_COLUMNS - filled), "dim"))
