"""Calendar months in UTC: the period of a plan's limit. Pure; the clock is an argument."""

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

DAY_NS: Final = 86_400 * 10**9


class Month(NamedTuple):
    """A calendar month in UTC, half-open."""

    label: str
    """`2026-11`."""
    start_ns: int
    end_ns: int


def month_of(now_ns: int) -> Month:
    """The month of `now_ns`, nanoseconds since the Unix epoch."""
    first = datetime.fromtimestamp(now_ns // 10**9, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=31)).replace(day=1)
    return Month(first.strftime("%Y-%m"), int(first.timestamp()) * 10**9, int(following.timestamp()) * 10**9)


def day_of(now_ns: int) -> int:
    """When the UTC day of `now_ns` began."""
    return now_ns - now_ns % DAY_NS
