"""Calls over time, in buckets of equal length."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any, Final

from gateway.analytics.parameters import parse_by, parse_step
from gateway.analytics.periods import NS, Range, rfc3339
from gateway.analytics.question import Question
from gateway.analytics.refusals import ParameterError
from gateway.ledger import Snapshot, queries
from gateway.ledger.queries import COLUMN_OF, Dimension

MAX_BUCKETS: Final = 2_000
MAX_SERIES: Final = 200
AIM_BUCKETS: Final = 200
"""The step that is taken when none is given makes at most so many."""

FIRST_MONDAY_NS: Final = 4 * 86_400 * NS
"""Of the Unix epoch, which begins on a Thursday: a bucket of a week is a calendar week (ISO 8601)."""

STEPS: Final = (
    ("1s", 1), ("5s", 5), ("10s", 10), ("30s", 30), ("1m", 60), ("5m", 300), ("10m", 600), ("30m", 1800), ("1h", 3600),
    ("2h", 7200), ("6h", 21_600), ("12h", 43_200), ("1d", 86_400), ("2d", 172_800), ("1w", 604_800), ("4w", 2_419_200),
    ("52w", 31_449_600),
)  # fmt: skip


def timeline(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """Buckets of one length, counted from a Monday's midnight in the request's zone: see `bucket_of`."""
    by = _dimension(question)
    span = question.range
    step_ns = _step(question, span)
    origin_ns = bucket_of(span.from_ns, step_ns, question.parameters.zone)
    count = bucket_count(span, step_ns, question.parameters.zone)
    series: dict[str | None, tuple[list[int], list[int]]] = {}
    if by is None:
        series[""] = ([0] * count, [0] * count)
    rows = snapshot.rows(queries.timeline(question.scope(), by, origin_ns=origin_ns, step_ns=step_ns))
    for since_ns, value, calls, errors in rows:
        line = series.setdefault(value, ([0] * count, [0] * count))
        line[0][since_ns // step_ns] = calls
        line[1][since_ns // step_ns] = errors
    limit = question.parameters.limit
    if limit is None and len(series) > MAX_SERIES:
        raise ParameterError(
            "by",
            f"makes {len(series)} series, and {MAX_SERIES} is the most: filter, or give limit={MAX_SERIES}",
            [f"limit={MAX_SERIES}"],
        )
    ranked = sorted(series.items(), key=lambda item: (-sum(item[1][0]), item[0] or ""))
    return {
        "step_s": step_ns // NS,
        "buckets": [rfc3339(origin_ns + i * step_ns) for i in range(count)],
        "series": [
            {**({COLUMN_OF[by]: value} if by else {}), "calls": calls, "errors": errors}
            for value, (calls, errors) in ranked[:limit]
        ],
    }


def bucket_of(ns: int, step_ns: int, zone: tzinfo) -> int:
    """When the bucket of `ns` begins: steps are counted from a Monday's midnight, with the zone's offset at `ns`."""
    offset = datetime.fromtimestamp(ns // NS, zone).utcoffset()
    local_ns = 0 if offset is None else int(offset.total_seconds()) * NS
    return ns - (ns + local_ns - FIRST_MONDAY_NS) % step_ns


def bucket_count(span: Range, step_ns: int, zone: tzinfo) -> int:
    """How many buckets the range touches."""
    return -(-(span.to_ns - bucket_of(span.from_ns, step_ns, zone)) // step_ns)


def _dimension(question: Question) -> Dimension | None:
    allowed: Sequence[str] = ["none", *COLUMN_OF]
    if question.fields.one("by", allowed) in (None, "none"):
        return None
    by = parse_by(question.fields)
    if len(by) > 1:
        raise ParameterError("by", "takes one dimension here: /groups takes several", allowed)
    return by[0]


def _step(question: Question, span: Range) -> int:
    zone = question.parameters.zone
    step_ns = parse_step(question.fields)
    if step_ns is None:
        return next((s * NS for _, s in STEPS if bucket_count(span, s * NS, zone) <= AIM_BUCKETS), STEPS[-1][1] * NS)
    count = bucket_count(span, step_ns, zone)
    if count > MAX_BUCKETS:
        enough = [name for name, s in STEPS if bucket_count(span, s * NS, zone) <= MAX_BUCKETS]
        raise ParameterError(
            "step", f"would make {count:,} buckets, and {MAX_BUCKETS:,} is the most: take step={enough[0]}", enough
        )
    return step_ns
