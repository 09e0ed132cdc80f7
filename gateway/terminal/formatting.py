"""How a terminal shows words, numbers, times and tables."""

import io
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from typing import Final, NoReturn
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gateway.calls import UNKNOWN
from gateway.errors import CallscopeError

NOTHING: Final = "-"
_SECOND_MS: Final = 1000
_FILE_COLUMNS: Final = 400
"""Width where output is not a terminal: no line is cut."""


class Terminal(Console):
    """Standard output; a broken pipe is an error like any other, which the command handles."""

    def on_broken_pipe(self) -> NoReturn:
        raise  # noqa: PLE0704 - rich calls this in its except block


def terminal() -> Terminal:
    """The terminal on standard output, or a very wide one for a file or a pipe."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # an encoding without block characters shows ? instead of failing
    found = Terminal(highlight=False)
    return found if found.is_terminal else Terminal(highlight=False, width=_FILE_COLUMNS)


def words(heading: str, max_width: int | None = None) -> Column:
    """A column of text, which is cut if the table is too wide."""
    return Column(_line(heading), overflow="ellipsis", max_width=max_width)


def numbers(heading: str) -> Column:
    """A column of numbers, which stay whole as long as there is text to cut."""
    return Column(heading, justify="right", no_wrap=True)


def table(columns: Sequence[Column], rows: Iterable[Sequence[Text | str]]) -> Table:
    """A table without lines, in which every row has one line."""
    found = Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for row in rows:
        found.add_row(*(_line(cell) for cell in row))
    return found


def _line(cell: Text | str) -> Text:
    """Text whose end rich cuts instead of wrapping it. It is never a `str`, in which rich would look for markup."""
    text = Text(cell) if isinstance(cell, str) else cell
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def one_line(text: str) -> str:
    """Text of servers and clients in one line, without control characters, which could command the terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def tool_label(server: str, tool: str) -> str:
    """The gateway's name of a tool, or that it is in no catalog."""
    if server == UNKNOWN:
        return "(unknown server)"
    return one_line(f"{server}__(unknown)" if tool == UNKNOWN else f"{server}__{tool}")


def milliseconds(value: float | None) -> str:
    """Without the unit, which the heading names."""
    return NOTHING if value is None else f"{value:.1f}" if value < _SECOND_MS else f"{value:,.0f}"


def duration(ms: float) -> str:
    """With its unit: `12.3 ms`, `4.5 s`."""
    return f"{ms:.1f} ms" if ms < _SECOND_MS else f"{ms / _SECOND_MS:.1f} s"


def percent(rate: float | None) -> str:
    """Of a rate between 0 and 1."""
    return NOTHING if rate is None else f"{rate:.1%}"


def plural(number: int, noun: str) -> str:
    """For example `1 call`, `1,234 calls`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def zone_of(name: str) -> tzinfo:
    """The IANA time zone of that name.

    Raises:
        CallscopeError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise CallscopeError(f"--tz: {name!r} is not an IANA time zone: write for example Europe/Berlin") from error


def clock_time(moment: str | datetime, zone: tzinfo) -> str:
    """For example `14:10:00`; a string is an RFC 3339 time."""
    time = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{time.astimezone(zone):%H:%M:%S}"


def full_time(timestamp: str, zone: tzinfo) -> str:
    """An RFC 3339 time in another zone, with milliseconds."""
    moment = datetime.fromisoformat(timestamp).astimezone(zone)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
