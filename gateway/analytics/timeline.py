"""Calls over time, in buckets."""

from collections.abc import Sequence
from typing import Any, Final

from gateway.analytics.buckets import bucket_count, bucket_edges, origin_changes
from gateway.analytics.http_errors import ParameterError
from gateway.analytics.models import Timeline, TimelineSeries
from gateway.analytics.parameters import parse_by, parse_step
from gateway.analytics.periods import NS, Range, rfc3339
from gateway.analytics.query import AnalyticsQuery
from gateway.calls import COLUMN_OF, Dimension
from gateway.ledger import Snapshot, queries

MAX_BUCKETS: Final = 2_000
MAX_SERIES: Final = 200
AIM_BUCKETS: Final = 200
"""The step that is taken when none is given makes at most so many."""

STEPS: Final = (
    ("1s", 1), ("5s", 5), ("10s", 10), ("30s", 30), ("1m", 60), ("5m", 300), ("10m", 600), ("30m", 1800), ("1h", 3600),
    ("2h", 7200), ("6h", 21_600), ("12h", 43_200), ("1d", 86_400), ("2d", 172_800), ("1w", 604_800), ("4w", 2_419_200),
    ("52w", 31_449_600),
)  # fmt: skip


def timeline(snapshot: Snapshot, query: AnalyticsQuery) -> Timeline:
    """Counts in each bucket of the range, of all calls or of each value of a dimension."""
    by = _dimension(query)
    span = query.range
    step_ns = _step(query, span)
    edges = bucket_edges(span, step_ns, query.parameters.zone)
    count = len(edges) - 1
    series: dict[str | None, tuple[list[int], list[int]]] = {}
    if by is None:
        series[""] = ([0] * count, [0] * count)
    asked = queries.timeline(
        query.scope(), by, origin_ns=edges[0], step_ns=step_ns, origin_changes=origin_changes(edges, step_ns)
    )
    for since_ns, value, calls, errors in snapshot.rows(asked):
        line = series.get(value)
        if line is None:
            line = series[value] = ([0] * count, [0] * count)
        line[0][since_ns // step_ns] = calls
        line[1][since_ns // step_ns] = errors
    limit = query.parameters.limit
    if limit is None and len(series) > MAX_SERIES:
        raise ParameterError(
            "by",
            f"makes {len(series)} series, and {MAX_SERIES} is the most: filter, or give limit={MAX_SERIES}",
            [f"limit={MAX_SERIES}"],
        )
    ranked = sorted(series.items(), key=lambda item: (-sum(item[1][0]), item[0] or ""))
    return Timeline(
        step_s=step_ns // NS,
        buckets=[rfc3339(edge) for edge in edges[:-1]],
        series=[
            TimelineSeries(**_of(by, value), calls=calls, errors=errors) for value, (calls, errors) in ranked[:limit]
        ],
    )


def _of(by: Dimension | None, value: str | None) -> dict[str, Any]:
    return {} if by is None else {COLUMN_OF[by]: value}


def _dimension(query: AnalyticsQuery) -> Dimension | None:
    allowed: Sequence[str] = ["none", *COLUMN_OF]
    if query.fields.one("by", allowed) in (None, "none"):
        return None
    by = parse_by(query.fields)
    if len(by) > 1:
        raise ParameterError("by", "takes one dimension here: /groups takes several", allowed)
    return by[0]


def _step(query: AnalyticsQuery, span: Range) -> int:
    zone = query.parameters.zone
    step_ns = parse_step(query.fields)
    if step_ns is None:
        return next((s * NS for _, s in STEPS if bucket_count(span, s * NS, zone) <= AIM_BUCKETS), STEPS[-1][1] * NS)
    count = bucket_count(span, step_ns, zone)
    if count > MAX_BUCKETS:
        enough = [name for name, s in STEPS if bucket_count(span, s * NS, zone) <= MAX_BUCKETS]
        raise ParameterError(
            "step", f"would make {count:,} buckets, and {MAX_BUCKETS:,} is the most: take step={enough[0]}", enough
        )
    return step_ns
