"""Several groupings of one scope in one statement, in the dialect that DuckDB and PostgreSQL share.

The calls are read once, into `chosen`, and counted once, in the finest grouping that is wanted (`counted`): the counts
of a grouping are sums of those. Durations go through all calls again, for each grouping that has them: a sum of sums
would differ in its last digits from the answer of another query about the same calls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.calls import COLUMN_OF, Dimension
from gateway.ledger.queries import PERCENTILES, Query, Scope, where

_NO_DURATIONS: Final = "cast(null as double precision), cast(null as double precision[])"
_COUNTS: Final = """
    cast(coalesce(sum(calls), 0) as bigint) as calls,
    cast(coalesce(sum(errors), 0) as bigint) as errors,
    max(last_ns) as last_ns
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """One way to group the calls of a scope."""

    by: tuple[Dimension, ...] = ()
    durations: bool = True
    """Average and percentiles: they cost many times what the rest does, and are None without. Not with `error_type`,
    which may be null."""
    top: int | None = None
    """Only so many groups, the most called ones, for each value of the first of `by`; without durations."""

    @property
    def columns(self) -> list[str]:
        return [COLUMN_OF[dimension] for dimension in self.by]


def grouping_query(scope: Scope, wanted: Sequence[Grouping]) -> Query:
    """A row for each group: its grouping's index in `wanted`, a value for each of `COLUMN_OF`, then `Measures`."""
    condition, parameters = where(scope)
    grouped = {column for grouping in wanted for column in grouping.columns}
    keys = [column for column in COLUMN_OF.values() if column in grouped]
    read = [*keys, *(column for column in ("status", "timestamp_ns", "duration_ms") if column not in grouped)]
    branches = " union all ".join(f"({_branch(index, grouping)})" for index, grouping in enumerate(wanted))
    return Query(
        f"""
        with chosen as materialized (select {", ".join(read)} from calls where {condition}),
        counted as materialized (
            select {"".join(f"{key}, " for key in keys)} count(*) as calls,
                count(*) filter (where status = 'error') as errors,
                max(timestamp_ns) as last_ns
            from chosen {_group_by(keys)}
        )
        {branches}
        """,
        {**parameters, **{f"top_{index}": grouping.top for index, grouping in enumerate(wanted) if grouping.top}},
    )


def _branch(index: int, grouping: Grouping) -> str:
    keys = grouping.columns
    padded = ", ".join(f"counts.{name}" if name in keys else "cast(null as text)" for name in COLUMN_OF.values())
    source, durations, condition = f"({_counts(grouping)}) as counts", _NO_DURATIONS, ""
    if grouping.top is not None:
        condition = f"where position <= $top_{index}"
    elif grouping.durations:
        each = "".join(f"{key}, " for key in keys)
        measured = f"avg(duration_ms) as avg_ms, {PERCENTILES} as found"
        of_each = f"select {each} {measured} from chosen {_group_by(keys)}"
        same = " and ".join(f"counts.{key} = spread.{key}" for key in keys) or "true"
        source, durations = f"{source} join ({of_each}) as spread on {same}", "spread.avg_ms, spread.found"
    return f"select {index}, {padded}, calls, errors, last_ns, {durations} from {source} {condition}"


def _counts(grouping: Grouping) -> str:
    keys = grouping.columns
    ranked = ""
    if grouping.top is not None:
        first, *others = keys
        order = ", ".join(["sum(calls) desc", *others])
        ranked = f", row_number() over (partition by {first} order by {order}) as position"
    return f"select {''.join(f'{key}, ' for key in keys)} {_COUNTS} {ranked} from counted {_group_by(keys)}"


def _group_by(keys: Sequence[str]) -> str:
    return f"group by {', '.join(keys)}" if keys else ""
