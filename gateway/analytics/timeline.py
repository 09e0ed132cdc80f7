"""Calls over time, in buckets.

Steps are counted from a Monday's midnight in a zone. A step of whole days follows the zone's calendar: its buckets
begin at midnight on both sides of a clock change, and the day of the change is longer or shorter than the others. Any
other step always has the same length, and its midnight is by the offset at the range's begin.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Any, Final

from gateway.analytics.http_errors import ParameterError
from gateway.analytics.models import Timeline, TimelineSeries
from gateway.analytics.parameters import parse_by, parse_step
from gateway.analytics.periods import NS, Range, local_date, rfc3339, start_of_day_ns
from gateway.analytics.query import AnalyticsQuery
from gateway.calls import COLUMN_OF, Dimension
from gateway.ledger import Snapshot, queries
from gateway.ledger.queries import OriginChange
from gateway.months import DAY_NS

MAX_BUCKETS: Final = 2_000
MAX_SERIES: Final = 200
DEFAULT_BUCKETS: Final = 200
"""If no step is given, the shortest one is taken that makes at most so many."""
FIRST_MONDAY: Final = date(1970, 1, 5)
"""A bucket of a week is a calendar week (ISO 8601)."""
_FIRST_MONDAY_NS: Final = 4 * DAY_NS

STEPS: Final = (
    ("1s", 1), ("5s", 5), ("10s", 10), ("30s", 30), ("1m", 60), ("5m", 300), ("10m", 600), ("30m", 1800), ("1h", 3600),
    ("2h", 7200), ("6h", 21_600), ("12h", 43_200), ("1d", 86_400), ("2d", 172_800), ("1w", 604_800), ("4w", 2_419_200),
    ("52w", 31_449_600),
)  # fmt: skip


def timeline(snapshot: Snapshot, query: AnalyticsQuery) -> Timeline:
    """Counts in each bucket of the range, of all calls or of each value of a dimension."""
    by = _dimension(query)
    step_ns = _step_ns(query)
    edges = bucket_edges(query.range, step_ns, query.parameters.zone)
    changes = origin_changes(edges, step_ns)
    rows = snapshot.rows(
        queries.timeline(query.scope(), by, origin_ns=edges[0], step_ns=step_ns, origin_changes=changes)
    )
    values: set[str | None] = {value for _, value, _, _ in rows} if by else {""}
    limit = query.parameters.limit
    if limit is None and len(values) > MAX_SERIES:
        raise ParameterError(
            "by",
            f"makes {len(values)} series, and {MAX_SERIES} is the most: filter, or give limit={MAX_SERIES}",
            [f"limit={MAX_SERIES}"],
        )
    series = {value: _series(by, value, len(edges) - 1) for value in values}
    for since_ns, value, calls, errors in rows:
        series[value].calls[since_ns // step_ns] = calls
        series[value].errors[since_ns // step_ns] = errors
    ranked = sorted(series.items(), key=lambda item: (-sum(item[1].calls), item[0] or ""))
    return Timeline(
        step_s=step_ns // NS,
        buckets=[rfc3339(edge) for edge in edges[:-1]],
        series=[one for _, one in ranked[:limit]],
    )


def _series(by: Dimension | None, value: str | None, buckets: int) -> TimelineSeries:
    key: dict[str, Any] = {COLUMN_OF[by]: value} if by else {}
    return TimelineSeries(**key, calls=[0] * buckets, errors=[0] * buckets)


def _dimension(query: AnalyticsQuery) -> Dimension | None:
    allowed = ["none", *COLUMN_OF]
    if query.fields.one("by", allowed) in (None, "none"):
        return None
    by = parse_by(query.fields)
    if len(by) > 1:
        raise ParameterError("by", "takes one dimension here: /groups takes several", allowed)
    return by[0]


def _step_ns(query: AnalyticsQuery) -> int:
    span, zone = query.range, query.parameters.zone
    step_ns = parse_step(query.fields)
    if step_ns is None:
        return next(
            (s * NS for _, s in STEPS if bucket_count(span, s * NS, zone) <= DEFAULT_BUCKETS), STEPS[-1][1] * NS
        )
    count = bucket_count(span, step_ns, zone)
    if count > MAX_BUCKETS:
        enough = [name for name, s in STEPS if bucket_count(span, s * NS, zone) <= MAX_BUCKETS]
        raise ParameterError(
            "step", f"would make {count:,} buckets, and {MAX_BUCKETS:,} is the most: take step={enough[0]}", enough
        )
    return step_ns


def bucket_count(span: Range, step_ns: int, zone: tzinfo) -> int:
    """How many buckets the range touches: at least as many as `bucket_edges` finds, without looking for them."""
    days, rest = divmod(step_ns, DAY_NS)
    if rest:
        return -(-(span.to_ns - _bucket_start_ns(span.from_ns, step_ns, zone)) // step_ns)
    return (local_date(span.to_ns - 1, zone) - _first_day(span, days, zone)).days // days + 1


def bucket_edges(span: Range, step_ns: int, zone: tzinfo) -> list[int]:
    """Where each bucket begins, and where the last one ends: nanoseconds since the Unix epoch, ascending.

    The range begins in the first bucket. Days that a zone skipped altogether have none.
    """
    days, rest = divmod(step_ns, DAY_NS)
    if rest:
        origin_ns = _bucket_start_ns(span.from_ns, step_ns, zone)
        return [origin_ns + i * step_ns for i in range(bucket_count(span, step_ns, zone) + 1)]
    day = _first_day(span, days, zone)
    edges = [start_of_day_ns(day, zone)]
    while edges[-1] < span.to_ns:
        day += timedelta(days=days)
        edge = start_of_day_ns(day, zone)
        if edge <= span.from_ns:  # where clocks are set back over midnight, a date comes twice
            edges = [edge]
        elif edge > edges[-1]:
            edges.append(edge)
    return edges


def origin_changes(edges: Sequence[int], step_ns: int) -> list[OriginChange]:
    """From when on buckets are counted from another origin than the first edge, so that all have one length in SQL.

    A time that is `n` steps after its origin is in bucket `n`. A bucket longer than the step is less than two steps
    long: its first part, up to one step before its end, is counted by the origin before.
    """
    found: list[OriginChange] = []
    origin_ns = edges[0]
    for number, (begin_ns, end_ns) in enumerate(pairwise(edges), start=1):
        if end_ns - number * step_ns != origin_ns:
            origin_ns = end_ns - number * step_ns
            found.append(OriginChange(max(begin_ns, end_ns - step_ns), origin_ns))
    return found


def _bucket_start_ns(ns: int, step_ns: int, zone: tzinfo) -> int:
    """When the bucket of `ns` begins, by the zone's offset at `ns`."""
    offset = datetime.fromtimestamp(ns // NS, zone).utcoffset()
    local_ns = 0 if offset is None else int(offset.total_seconds()) * NS
    return ns - (ns + local_ns - _FIRST_MONDAY_NS) % step_ns


def _first_day(span: Range, days: int, zone: tzinfo) -> date:
    """The date on which the range's first bucket begins."""
    day = local_date(span.from_ns, zone)
    return day - timedelta(days=(day - FIRST_MONDAY).days % days)
