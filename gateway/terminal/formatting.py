"""Words and numbers as a terminal shows them."""

from datetime import datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from gateway.calls import UNKNOWN
from gateway.errors import CallscopeError

NOTHING: Final = "-"
_KILO: Final = 1000
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def one_line(text: str) -> str:
    """Text of servers and clients, which is shown and not obeyed: without breaks and what commands a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def tool_label(server: str, tool: str) -> str:
    """The gateway's name of a tool; names that no catalog has are told as such."""
    if server == UNKNOWN:
        return "(unknown server)"
    return one_line(f"{server}__(unknown)" if tool == UNKNOWN else f"{server}__{tool}")


def milliseconds(value: float | None) -> str:
    """Where the heading names the unit."""
    return NOTHING if value is None else f"{value:.1f}" if value < _KILO else f"{value:,.0f}"


def duration(ms: float) -> str:
    """With its unit, in at most 7 columns up to a day."""
    return f"{ms:.1f} ms" if ms < _KILO else f"{ms / _KILO:.1f} s"


def percent(rate: float | None) -> str:
    """A rate between 0 and 1."""
    return NOTHING if rate is None else f"{rate:.1%}"


def count(number: int | None) -> str:
    """With thousands told apart; None is no limit."""
    return "unlimited" if number is None else f"{number:,}"


def size(number: float) -> str:
    """Bytes, rounded: `1.2 MB`."""
    for unit in _UNITS:
        if number < _KILO or unit == _UNITS[-1]:
            break
        number /= _KILO
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def plural(number: int, noun: str) -> str:
    """`1 call`, `2 calls`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def zone_of(name: str) -> tzinfo:
    """The IANA time zone in which times are shown.

    Raises:
        CallscopeError: there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise CallscopeError(f"--tz: {name!r} is no IANA time zone, for instance Europe/Berlin or UTC") from error


def clock_time(timestamp: str, zone: tzinfo) -> str:
    """`14:10:00`, of an RFC 3339 time."""
    return f"{datetime.fromisoformat(timestamp).astimezone(zone):%H:%M:%S}"


def full_time(timestamp: str, zone: tzinfo) -> str:
    """RFC 3339 with milliseconds, in a zone."""
    moment = datetime.fromisoformat(timestamp).astimezone(zone)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
