"""`callscope tail`: the live stream, one call per line, continued after an interruption."""

import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

import click
from rich.text import Text

from gateway.analytics.models import CallSummary, StreamLag
from gateway.backoff import Backoff
from gateway.mcp.sse import Parser, ServerSentEvent
from gateway.terminal.api_client import ApiClient, Parameters, UnansweredError, decode
from gateway.terminal.formatting import clock_time, duration, full_time, one_line, plural, terminal, tool_label, zone_of
from gateway.terminal.options import CONNECTION, FILTERS, TZ, WORKSPACE, connected, filters

NAMES: Final = (0.13, 0.28)
"""The parts of a terminal's width for the names of member and tool."""
SILENCE_S: Final = 45.0
"""Three times the interval of the comments that keep a stream alive: after this time it is broken."""
TTL_S: Final = 3600.0
"""A stream ends when its JWT expires; the observer ends every stream after this time."""
RETRY_MS: Final = 1000


@click.command()
@click.option("--last", type=click.IntRange(min=0), metavar="N", help="Begin with the newest N calls, at most 1000.")
@click.option("--errors", is_flag=True, help="The same as --status error.")
@click.option("--json", "as_json", is_flag=True, help="Print each call as a line of JSON, as the API sends it.")
@WORKSPACE
@TZ
@CONNECTION
@FILTERS
def tail(last: int | None, workspace: str | None, *, errors: bool, as_json: bool, **options: Any) -> None:
    """Calls as they happen, until Ctrl-C.

    Each line has the time, member, server__tool, status or error type, duration and error message. After an
    interruption no call is repeated or lost. Notes about the stream itself go to stderr.
    """
    selected = [*filters(options), *([("status", "error")] if errors else [])]
    zone, out = zone_of(options["tz"]), terminal()
    with connected(options) as api:
        for event in follow(api, api.one(workspace), selected, last=last):
            if event.event == "lag":
                click.echo(_lag(decode(event.data, StreamLag).skipped), err=True)
            elif event.event != "call":
                continue
            elif as_json:
                click.echo(event.data)
            elif out.is_terminal:
                line = terminal_line(decode(event.data, CallSummary), zone, shutil.get_terminal_size().columns)
                out.print(line, no_wrap=True, overflow="ellipsis")
            else:
                click.echo(file_line(decode(event.data, CallSummary), zone))


def follow(
    api: ApiClient, workspace: str, selected: Parameters, *, last: int | None = None
) -> Iterator[ServerSentEvent]:
    """The stream's events, each once and without end. A reconnect continues after the last event that was received.

    Raises:
        UnansweredError: there is no stream at the beginning.
        CallscopeError: the request is rejected, at the beginning or at a reconnect.
    """
    parser = Parser(retry_ms=RETRY_MS)
    backoff = Backoff(1.0, 10.0)
    replay = [] if last is None else [("last", str(last))]  # the observer ignores it if there is a Last-Event-ID
    connected_once = interrupted = False
    while True:
        position = {} if parser.last_id is None else {"Last-Event-ID": parser.last_id}
        pause = 0.0  # without an error the observer stopped, or the JWT expired
        try:
            with api.stream(
                workspace, "/logs/stream", [*selected, *replay], position, timeout_s=SILENCE_S, ttl_s=TTL_S
            ) as response:
                if interrupted:
                    click.echo(f"{_now()} the stream is connected again", err=True)
                connected_once, interrupted = True, False
                backoff.reset()
                for chunk in response.iter_bytes():
                    yield from parser.feed(chunk)
        except UnansweredError as error:
            if not connected_once:
                raise
            if not interrupted:
                click.echo(f"{_now()} the stream broke off: {error.reason}: reconnecting …", err=True)
            interrupted = True
            pause = max(backoff.failed(), error.retry_after_s)
        parser = Parser(parser.last_id, parser.retry_ms)  # half an event is sent again as a whole
        time.sleep(max(pause, (parser.retry_ms or 0) / 1000))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _lag(skipped: int | None) -> str:
    if skipped is None:
        return "calls are missing here: that part of the journal is deleted, or another replica answers now"
    return f"{plural(skipped, 'call')} left out: they came faster than they could be read"


def file_line(call: CallSummary, zone: tzinfo) -> str:
    """A whole line for files and programs; the columns of short names are aligned."""
    tool = tool_label(call.server_slug, call.tool_name)
    line = f"{full_time(call.timestamp, zone)} {one_line(call.token_id):<16} {tool:<32} {_outcome(call):<13} "
    return f"{line}{duration(call.duration_ms):>9}  {one_line(call.error_message or '')}".rstrip()


def terminal_line(call: CallSummary, zone: tzinfo, width: int) -> Text:
    """A line that fits into a terminal: long names and the end of the message are cut."""
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
