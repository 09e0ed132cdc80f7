"""Where the buckets of a timeline begin and end. Pure.

Steps are counted from a Monday's midnight in a zone. A step of whole days is one of the zone's calendar: its buckets
begin at midnight on both sides of a clock change, and the day of the change is longer or shorter than the others. Any
other step is always equally long, and its midnight is that of the clock at the range's begin.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta, tzinfo
from itertools import pairwise
from typing import Final

from gateway.analytics.periods import NS, Range, local_date, start_of_day_ns
from gateway.ledger.queries import OriginChange
from gateway.months import DAY_NS

FIRST_MONDAY: Final = date(1970, 1, 5)
"""A bucket of a week is a calendar week (ISO 8601)."""
_FIRST_MONDAY_NS: Final = 4 * DAY_NS


def bucket_count(span: Range, step_ns: int, zone: tzinfo) -> int:
    """How many buckets the range touches: at least as many as `bucket_edges` finds, without looking for them."""
    days, rest = divmod(step_ns, DAY_NS)
    if rest:
        return -(-(span.to_ns - _bucket_of(span.from_ns, step_ns, zone)) // step_ns)
    return (local_date(span.to_ns - 1, zone) - _first_day(span, days, zone)).days // days + 1


def bucket_edges(span: Range, step_ns: int, zone: tzinfo) -> list[int]:
    """Where each bucket begins, and where the last one ends: nanoseconds since the Unix epoch, ascending.

    The range begins in the first bucket. Days that a zone has skipped altogether are not there.
    """
    days, rest = divmod(step_ns, DAY_NS)
    if rest:
        origin_ns = _bucket_of(span.from_ns, step_ns, zone)
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
    """What makes buckets of one length of these: from when on they are counted from another origin than the first edge.

    So many steps behind its origin, a time is in the bucket of that number. A bucket that is longer than the step is
    less than two steps long: what is too much of it is counted as its first part is.
    """
    found: list[OriginChange] = []
    origin_ns = edges[0]
    for number, (begin_ns, end_ns) in enumerate(pairwise(edges), start=1):
        if end_ns - number * step_ns != origin_ns:
            origin_ns = end_ns - number * step_ns
            found.append(OriginChange(max(begin_ns, end_ns - step_ns), origin_ns))
    return found


def _bucket_of(ns: int, step_ns: int, zone: tzinfo) -> int:
    """When the bucket of `ns` begins, by the zone's offset at `ns`."""
    offset = datetime.fromtimestamp(ns // NS, zone).utcoffset()
    local_ns = 0 if offset is None else int(offset.total_seconds()) * NS
    return ns - (ns + local_ns - _FIRST_MONDAY_NS) % step_ns


def _first_day(span: Range, days: int, zone: tzinfo) -> date:
    """The date on which the range's first bucket begins."""
    day = local_date(span.from_ns, zone)
    return day - timedelta(days=(day - FIRST_MONDAY).days % days)
