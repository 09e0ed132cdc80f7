"""`callscope tail`: the live stream, a call a line."""

import shutil
import sys
from datetime import tzinfo
from typing import Final

import click
from rich.text import Text

from gateway.analytics.models import CallSummary, StreamLag
from gateway.terminal.api import ApiClient, Parameters, read
from gateway.terminal.exit_codes import reports_errors
from gateway.terminal.formatting import clock_time, duration, full_time, one_line, plural, tool_label, zone_of
from gateway.terminal.observer_connection import ObserverConnection
from gateway.terminal.options import ONE_WORKSPACE, TZ, connected, filtered
from gateway.terminal.reconnecting_stream import follow
from gateway.terminal.screen import terminal

NAMES: Final = (0.13, 0.28)
"""The parts of a terminal's width that a member's and a tool's name have."""


@click.command()
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="Begin with the newest N calls, 1000 at most.")
@click.option("--errors", is_flag=True, help="The same as --status error.")
@click.option("--json", "as_json", is_flag=True, help="Each call as a line of JSON, as the API has it.")
@ONE_WORKSPACE
@TZ
@reports_errors
@connected
@filtered
def tail(
    connection: ObserverConnection,
    workspace: str | None,
    filters: Parameters,
    tz: str,
    last: int | None,
    *,
    errors: bool,
    as_json: bool,
) -> None:
    """Calls as they happen, until Ctrl-C.

    Time, member, server__tool, status or error type, duration, error message. After an interruption it goes on where it
    was: nothing is repeated, nothing is lost. What it has to say itself is on stderr.
    """
    if errors:
        filters = [*filters, ("status", "error")]
    zone, out = zone_of(tz), terminal()
    with ApiClient(connection) as api:
        for event in follow(api, connection.one(workspace), filters, last=last, say=_say):
            if event.event == "lag":
                _say(_missing(read(event.data, StreamLag).skipped))
            elif event.event != "call":
                continue
            elif as_json:
                click.echo(event.data)
            elif out.is_terminal:
                width = shutil.get_terminal_size().columns
                out.print(fitting_line(read(event.data, CallSummary), zone, width), no_wrap=True, overflow="ellipsis")
            else:
                click.echo(whole_line(read(event.data, CallSummary), zone))


def _say(text: str) -> None:
    click.echo(text, file=sys.stderr)


def _missing(skipped: int | None) -> str:
    if skipped is None:
        return "calls are missing here: that part of the journal is gone, or another replica answers now"
    return f"{plural(skipped, 'call')} left out: they came faster than they were read here"


def whole_line(call: CallSummary, zone: tzinfo) -> str:
    """Everything, for files and programs; the columns of usual names are aligned."""
    tool = tool_label(call.server_slug, call.tool_name)
    line = f"{full_time(call.timestamp, zone)} {one_line(call.token_id):<16} {tool:<32} {_outcome(call):<13} "
    return f"{line}{duration(call.duration_ms):>9}  {one_line(call.error_message or '')}".rstrip()


def fitting_line(call: CallSummary, zone: tzinfo, width: int) -> Text:
    """The same for a terminal: names that are too long are cut, and what does not fit at the end."""
    line = Text().append(clock_time(call.timestamp, zone), style="dim")
    names = (one_line(call.token_id), tool_label(call.server_slug, call.tool_name))
    for name, share in zip(names, NAMES, strict=True):
        cell = Text(name)
        cell.truncate(int(width * share), overflow="ellipsis", pad=True)
        line.append(" ").append_text(cell)
    line.append(f" {_outcome(call):<12}", style="green" if call.status == "success" else "red")
    line.append(f" {duration(call.duration_ms):>8} {one_line(call.error_message or '')}".rstrip())
    line.truncate(width, overflow="ellipsis")
    return line


def _outcome(call: CallSummary) -> str:
    return one_line(call.error_type or call.status)
