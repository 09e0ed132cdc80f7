"""Ranges of time that a request means, as nanoseconds since the Unix epoch. Pure; the clock is an argument."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

NS: Final = 10**9
MAX_NS: Final = 2**63 - 1
"""The year 2262: the last that the ledger's integers can hold."""
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LENGTH: Final = "[1-9][0-9]{0,8}[smhdw]"
"""The pattern of a length of time."""
_LENGTH: Final = re.compile(LENGTH)
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)


class Starts(NamedTuple):
    """When the day, the week (on Monday) and the month of a moment began in a zone."""

    today_ns: int
    week_ns: int
    month_ns: int


class Range(NamedTuple):
    """A half-open range, and whether a plan has clamped it."""

    from_ns: int
    to_ns: int
    clamped: bool


def epoch_ns(moment: datetime) -> int:
    """Exact nanoseconds of an aware time."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000


def starts(now_ns: int, zone: tzinfo) -> Starts:
    today = local_date(now_ns, zone)
    days = (today, today - timedelta(days=today.weekday()), today.replace(day=1))
    return Starts(*(start_of_day_ns(day, zone) for day in days))


def local_date(ns: int, zone: tzinfo) -> date:
    return datetime.fromtimestamp(ns // NS, zone).date()


def start_of_day_ns(day: date, zone: tzinfo) -> int:
    """When a day begins: where clocks skip midnight, at the skip; where midnight comes twice, at the first one.

    Both are what `fold=0` means (PEP 495).
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return epoch_ns(midnight.astimezone(UTC))


def clamp(from_ns: int, to_ns: int, *, now_ns: int, retention_days: int | None) -> Range:
    """The part of a range that a plan retains."""
    oldest = oldest_ns(now_ns, retention_days)
    return Range(max(from_ns, oldest), max(to_ns, oldest), clamped=from_ns < oldest)


def oldest_ns(now_ns: int, retention_days: int | None) -> int:
    """When the time that a plan retains begins."""
    return 0 if retention_days is None else max(now_ns - retention_days * _UNIT_S["d"] * NS, 0)


def length_s(text: str) -> int | None:
    """The seconds of `90s`, `5m`, `1h`, `7d`, `2w`; None if it is not a length."""
    return int(text[:-1]) * _UNIT_S[text[-1]] if _LENGTH.fullmatch(text) else None


def period_start(period: str, now_ns: int, zone: tzinfo) -> int | None:
    """When the period that ends now began; None if there is no such period."""
    begun = starts(now_ns, zone)
    named = {"today": begun.today_ns, "week": begun.week_ns, "month": begun.month_ns}
    if period in named:
        return named[period]
    length = length_s(period)
    return max(now_ns - length * NS, 0) if length else None


def moment_ns(text: str) -> int | None:
    """The nanoseconds of an RFC 3339 time or of seconds since the epoch; None if it is neither, or out of range."""
    if match := _EPOCH.fullmatch(text):
        ns = int(match[1]) * NS + _fraction_ns(match[2])
    elif match := _RFC3339.fullmatch(text):
        try:
            ns = epoch_ns(datetime.fromisoformat(match[1].upper() + match[3].upper())) + _fraction_ns(match[2])
        except (ValueError, OverflowError):
            return None
    else:
        return None
    return ns if 0 <= ns <= MAX_NS else None


def _fraction_ns(digits: str | None) -> int:
    return int((digits or "").ljust(9, "0"))


def rfc3339(ns: int) -> str:
    """In UTC, with milliseconds; what is finer is cut off."""
    moment = datetime.fromtimestamp(ns // NS, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ns % NS // 10**6:03d}Z"
