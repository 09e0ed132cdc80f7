"""Strict parsing of a query string: what is unknown, repeated, empty or out of bounds is an error with a name."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from gateway.analytics.http_errors import ParameterError
from gateway.analytics.periods import NS, length_s, moment_ns, period_start
from gateway.calls import COLUMN_OF, Dimension, ErrorType

COMMON: Final = ("period", "from", "to", "tz", *COLUMN_OF, "limit")
"""The parameters of every read."""
LIVE_PARAMETERS: Final = (*COLUMN_OF, "last")
"""Those of the live stream."""

DEFAULT_PERIOD: Final = "7d"
DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 10_000
MAX_LAST: Final = 1_000
"""Calls that the live stream replays at most."""
MAX_STEP_S: Final = 366 * 86_400
PERIODS: Final = ("today", "week", "month", "1h", "24h", "7d", "30d", "90d")
CLOSED_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "status": ("success", "error"),
    "error_type": tuple(str(error_type) for error_type in ErrorType),
}
"""Filters whose values are known; the others' are names."""
_MOMENTS: Final = ("2026-11-01T00:00:00Z", "1793491200")


class Fields:
    """The names and values of a query string; `ParameterError` for a name that is not in `known`."""

    def __init__(self, items: Iterable[tuple[str, str]], known: Collection[str]) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            if name not in known:
                raise ParameterError(name, "is not a parameter here", sorted(known))
            self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def one(self, name: str, allowed: Sequence[str] = ()) -> str | None:
        """The value, None if the parameter is not there; `ParameterError` if it is repeated or empty."""
        values = self._values.get(name, [])
        if len(values) > 1:
            raise ParameterError(name, f"is given {len(values)} times, but takes one value", allowed)
        if values == [""]:
            raise ParameterError(name, "has no value: give one, or leave it out", allowed)
        return values[0] if values else None

    def many(self, name: str) -> tuple[str, ...]:
        """Every value, each once."""
        return tuple(dict.fromkeys(self._values.get(name, [])))

    def integer(self, name: str, least: int, most: int) -> int | None:
        """The number, None if the parameter is not there; `ParameterError` if it is not within the bounds."""
        allowed = [f"{least}..{most}"]
        text = self.one(name, allowed)
        if text is None:
            return None
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
        if not (digits and least <= int(text) <= most):
            raise ParameterError(name, f"{text!r} is not a whole number from {least} to {most}", allowed)
        return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The parameters of every read. The range is [`from_ns`, `to_ns`), before a plan's retention clamps it."""

    from_ns: int
    to_ns: int
    tz: str
    zone: tzinfo
    filters: Mapping[Dimension, tuple[str, ...]]
    limit: int | None
    """None if it is not given."""

    @property
    def top(self) -> int:
        """How long a list may be."""
        return DEFAULT_LIMIT if self.limit is None else self.limit


def parse(fields: Fields, *, now_ns: int, max_limit: int = MAX_LIMIT) -> Parameters:
    """The parameters of every read, with defaults; `ParameterError` for the first mistake."""
    tz, zone = _zone(fields)
    from_ns, to_ns = _range(fields, now_ns, zone)
    return Parameters(
        from_ns=from_ns,
        to_ns=to_ns,
        tz=tz,
        zone=zone,
        filters={dimension: _filter(fields, dimension) for dimension in COLUMN_OF},
        limit=fields.integer("limit", 1, max_limit),
    )


def _zone(fields: Fields) -> tuple[str, tzinfo]:
    examples = ("UTC", "Europe/Berlin", "America/New_York")
    name = fields.one("tz", examples) or "UTC"
    try:
        return name, UTC if name == "UTC" else ZoneInfo(name)  # UTC needs no time zone database
    except (KeyError, ValueError, OSError) as error:  # unknown; no path; a folder of zones
        raise ParameterError("tz", f"{name!r} is not an IANA time zone", examples) from error


def _range(fields: Fields, now_ns: int, zone: tzinfo) -> tuple[int, int]:
    explicit = [name for name in ("from", "to") if name in fields]
    if not explicit:
        period = fields.one("period", PERIODS) or DEFAULT_PERIOD
        start = period_start(period, now_ns, zone)
        if start is None:
            raise ParameterError("period", f"{period!r} is not a period: give a name, or a length like 12h", PERIODS)
        return start, now_ns
    if "period" in fields:
        raise ParameterError("period", "excludes from and to: give one or the other", explicit)
    if "from" not in fields:
        raise ParameterError("from", "is missing: to needs it", _MOMENTS)
    from_ns, to_ns = _moment(fields, "from"), _moment(fields, "to") if "to" in fields else now_ns
    if from_ns >= to_ns:
        raise ParameterError("from", "must be before to, which is now if it is not given", _MOMENTS)
    return from_ns, to_ns


def _moment(fields: Fields, name: str) -> int:
    text = fields.one(name, _MOMENTS) or ""
    ns = moment_ns(text)
    if ns is None:
        hint = " (a '+' in a query string is written %2B)" if " " in text else ""
        raise ParameterError(name, f"{text!r} is neither an RFC 3339 time nor seconds since 1970{hint}", _MOMENTS)
    return ns


def _filter(fields: Fields, dimension: Dimension) -> tuple[str, ...]:
    values = fields.many(dimension)
    allowed = CLOSED_VALUES.get(dimension, ())
    for value in values:
        if not value:
            raise ParameterError(dimension, "has no value: give one, or leave it out", allowed)
        if allowed and value not in allowed:
            raise ParameterError(dimension, f"{value!r} is not a value of {dimension}", allowed)
    return values


def parse_by(fields: Fields) -> tuple[Dimension, ...]:
    """The dimensions in `by`; `ParameterError` if it is missing, or has an unknown or repeated one."""
    allowed = list(COLUMN_OF)
    values = fields.many("by")
    if not values:
        raise ParameterError("by", "is missing: name what to group by, joined by commas", allowed)
    names = [name.strip() for name in ",".join(values).split(",")] if any(values) else []
    known: dict[str, Dimension] = {str(dimension): dimension for dimension in COLUMN_OF}
    for i, name in enumerate(names):
        if name not in known:
            raise ParameterError("by", f"{name!r} cannot be grouped by", allowed)
        if name in names[:i]:
            raise ParameterError("by", f"{name!r} is given twice", allowed)
    return tuple(known[name] for name in names)


def parse_step(fields: Fields) -> int | None:
    """The nanoseconds of `step`, None if it is not given; `ParameterError` if it is not a length of time."""
    allowed = ("1m", "5m", "1h", "6h", "1d")
    text = fields.one("step", allowed)
    if text is None:
        return None
    length = length_s(f"{text}s" if text.isdigit() else text)
    if length is None or length > MAX_STEP_S:
        raise ParameterError("step", f"{text!r} is not a length of time of at most 366 days", allowed)
    return length * NS
