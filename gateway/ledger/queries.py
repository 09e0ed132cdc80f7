"""The ledger's questions as SQL: pure functions, in the dialect that DuckDB and PostgreSQL share.

Every query but `totals` and `used_by_every_workspace` is bound to one workspace. Values are parameters,
written `$name`; only names of columns, which come from the tables below, are part of a text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from gateway.calls import ErrorType
from gateway.ledger.rows import COLUMNS
from gateway.months import DAY_NS

Dimension = Literal["server", "tool", "token", "status", "error_type"]

COLUMN_OF: Final[Mapping[Dimension, str]] = {
    "server": "server_slug",
    "tool": "tool_name",
    "token": "token_id",
    "status": "status",
    "error_type": "error_type",
}
"""What calls can be filtered and grouped by, and the column that holds it."""

REFUSED_BY_LIMITS: Final = (ErrorType.RATE_LIMITED.value, ErrorType.QUOTA_EXCEEDED.value)
"""Failures that use nothing up: a call that a limit refused must not bring the limit nearer."""

_COUNTS_AGAINST_LIMIT: Final = "(error_type is null or error_type <> all($refused))"

_COUNTS: Final = """
    count(*),
    count(*) filter (where status = 'error'),
    max(timestamp_ns),
    avg(duration_ms),
    """
_PERCENTILES: Final = "percentile_cont(array[0.5, 0.95, 0.99]) within group (order by duration_ms)"
"""One aggregate with three answers: durations are collected and put in order once."""

_NO_PERCENTILES: Final = "cast(null as double precision[])"


class Query(NamedTuple):
    """SQL and the values of its `$name` parameters."""

    sql: str
    parameters: Mapping[str, object]


class Measures(NamedTuple):
    """What is measured of a set of calls; the milliseconds are None if it is empty."""

    calls: int
    errors: int
    last_ns: int | None
    avg_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Measures":
        """The last columns of a row of `cuts` or `groups`."""
        *_, calls, errors, last_ns, avg_ms, percentiles = row
        return cls(calls, errors, last_ns, avg_ms, *(percentiles or (None, None, None)))


NO_CALLS: Final = Measures(0, 0, None, None, None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One way to group the calls of a scope."""

    by: tuple[Dimension, ...] = ()
    percentiles: bool = True
    """They cost many times what the rest does: without them they are None."""
    top: int | None = None
    """Only so many groups, the most called ones, for each value of the first of `by`; without percentiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The calls of one workspace in [`from_ns`, `to_ns`) that have, for each filter, one of its values."""

    workspace_id: str
    from_ns: int
    to_ns: int
    filters: Mapping[Dimension, tuple[str, ...]]


def _where(scope: Scope) -> Query:
    conditions = ["workspace_id = $workspace_id", "timestamp_ns >= $from_ns", "timestamp_ns < $to_ns"]
    parameters: dict[str, object] = {
        "workspace_id": scope.workspace_id,
        "from_ns": scope.from_ns,
        "to_ns": scope.to_ns,
    }
    for dimension, values in scope.filters.items():
        if values:
            conditions.append(f"{COLUMN_OF[dimension]} = any($only_{dimension})")
            parameters[f"only_{dimension}"] = list(values)
    return Query(" and ".join(conditions), parameters)


def counts_since(scope: Scope, starts: Sequence[int]) -> Query:
    """One row: the calls of the scope at or after each of `starts`, in their order."""
    where, parameters = _where(scope)
    counts = ", ".join(f"count(*) filter (where timestamp_ns >= $start_{i})" for i in range(len(starts)))
    values = {f"start_{i}": start for i, start in enumerate(starts)}
    return Query(f"select {counts} from calls where {where}", {**parameters, **values})  # noqa: S608 - constants


def groups(scope: Scope, by: Sequence[Dimension]) -> Query:
    """A row for each combination that occurs: the values of `by`, then `Measures`. Without `by`, the row of all."""
    where, parameters = _where(scope)
    keys = ", ".join(COLUMN_OF[dimension] for dimension in by)
    selected = f"{keys}, " if by else ""
    grouped = f"group by {keys}" if by else ""
    return Query(
        f"select {selected}{_COUNTS} {_PERCENTILES} from calls where {where} {grouped}",  # noqa: S608 - constants
        parameters,
    )


def cuts(scope: Scope, wanted: Sequence[Cut]) -> Query:
    """Several groupings in one statement, which keeps all cores busy where one percentile leaves all but one idle.

    A row for each cut and group: the cut's place in `wanted`, a value for each of `COLUMN_OF`, then `Measures`.
    """
    where, parameters = _where(scope)
    branches = " union all ".join(f"({_branch(place, cut, where)})" for place, cut in enumerate(wanted))
    return Query(branches, {**parameters, **{f"top_{place}": cut.top for place, cut in enumerate(wanted) if cut.top}})


def _branch(place: int, cut: Cut, where: str) -> str:
    grouped = [COLUMN_OF[dimension] for dimension in cut.by]
    keys = ", ".join(grouped)
    padded = ", ".join(column if column in grouped else "cast(null as text)" for column in COLUMN_OF.values())
    group_by = f"group by {keys}" if keys else ""
    if cut.top is None:
        measures = f"{_COUNTS} {_PERCENTILES if cut.percentiles else _NO_PERCENTILES}"
        return f"select {place}, {padded}, {measures} from calls where {where} {group_by}"  # noqa: S608 - constants
    first, *others = grouped
    order = ", ".join(["count(*) desc", *others])
    return f"""
        select {place}, {padded}, calls, errors, last_ns, avg_ms, {_NO_PERCENTILES} from (
            select {keys}, count(*) as calls, count(*) filter (where status = 'error') as errors,
                max(timestamp_ns) as last_ns, avg(duration_ms) as avg_ms,
                row_number() over (partition by {first} order by {order}) as place
            from calls where {where} {group_by}
        ) as ranked
        where place <= $top_{place}"""  # noqa: S608 - constants


def timeline(scope: Scope, by: Dimension | None, *, origin_ns: int, step_ns: int) -> Query:
    """A row for each bucket and value of `by` that occurs: nanoseconds from the origin, value, calls, errors.

    `origin_ns` is not after the scope's begin.
    """
    where, parameters = _where(scope)
    value = COLUMN_OF[by] if by else "''"
    return Query(
        f"""
        select since_origin - mod(since_origin, $step_ns), value, count(*), count(*) filter (where status = 'error')
        from (select timestamp_ns - $origin_ns as since_origin, {value} as value, status from calls where {where}) as c
        group by 1, 2
        """,  # noqa: S608 - constants
        {**parameters, "origin_ns": origin_ns, "step_ns": step_ns},
    )


class Place(NamedTuple):
    """A call's place in the order of pages: by timestamp, then by call id."""

    timestamp_ns: int
    call_id: str


def page(scope: Scope, *, after: Place | None, limit: int) -> Query:
    """The newest calls of the scope, or those that come after `after` in that order; rows as `COLUMNS`."""
    where, parameters = _where(scope)
    if after is not None:
        where += " and (timestamp_ns < $after_ns or (timestamp_ns = $after_ns and call_id < $after_id))"
        parameters = {**parameters, "after_ns": after.timestamp_ns, "after_id": after.call_id}
    return Query(
        f"select {', '.join(COLUMNS)} from calls where {where} order by timestamp_ns desc, call_id desc limit $limit",  # noqa: S608 - constants
        {**parameters, "limit": limit},
    )


def oldest_first(scope: Scope, *, limit: int | None) -> Query:
    """The calls of the scope, or the oldest `limit` of them; rows as `COLUMNS`."""
    where, parameters = _where(scope)
    return Query(
        f"select {', '.join(COLUMNS)} from calls where {where} order by timestamp_ns, call_id"  # noqa: S608 - constants
        f"{'' if limit is None else ' limit $limit'}",
        parameters if limit is None else {**parameters, "limit": limit},
    )


def call(scope: Scope, call_id: str) -> Query:
    """The call of this id, if it is in the scope: a row as `COLUMNS`."""
    where, parameters = _where(scope)
    return Query(
        f"select {', '.join(COLUMNS)} from calls where {where} and call_id = $call_id limit 1",  # noqa: S608 - constants
        {**parameters, "call_id": call_id},
    )


def used(scope: Scope) -> Query:
    """One row: the calls that count against the plan's limit, those that retention has deleted among them.

    The scope begins with a day, and only its tokens are filtered.
    """
    kept, deleted, parameters = _usage(scope)
    return Query(
        f"""
        select (select count(*) from calls where {kept})
            + (select cast(coalesce(sum(calls), 0) as bigint) from deleted_usage where {deleted})
        """,  # noqa: S608 - constants
        parameters,
    )


def used_by_day(scope: Scope) -> Query:
    """A row for each UTC day that has any: when it began, and its calls as `used` counts them. In the days' order."""
    kept, deleted, parameters = _usage(scope)
    return Query(
        f"""
        select day_ns, cast(sum(calls) as bigint) from (
            select timestamp_ns - mod(timestamp_ns, $day) as day_ns, 1 as calls from calls where {kept}
            union all
            select day_ns, calls from deleted_usage where {deleted}
        ) as used
        group by day_ns order by day_ns
        """,  # noqa: S608 - constants
        {**parameters, "day": DAY_NS},
    )


def used_by_every_workspace(from_ns: int, to_ns: int) -> Query:
    """A row for each workspace that has any: its id, and its calls as `used` counts them."""
    return Query(
        f"""
        select workspace_id, cast(sum(calls) as bigint) from (
            select workspace_id, count(*) as calls from calls
            where timestamp_ns >= $from_ns and timestamp_ns < $to_ns and {_COUNTS_AGAINST_LIMIT}
            group by workspace_id
            union all
            select workspace_id, calls from deleted_usage where day_ns >= $from_ns and day_ns < $to_ns
        ) as used
        group by workspace_id
        """,  # noqa: S608 - constants
        {"from_ns": from_ns, "to_ns": to_ns, "refused": list(REFUSED_BY_LIMITS)},
    )


class Totals(NamedTuple):
    """A workspace's calls until now: as `used` counts them this month, and as `counts_since` does since three times."""

    used: int = 0
    today: int = 0
    week: int = 0
    month: int = 0


def totals(oldest_ns: Mapping[str, int], *, month_ns: int, since_ns: tuple[int, int, int], to_ns: int) -> Query:
    """A row for each workspace of `oldest_ns` that has calls: its id, then `Totals`.

    `oldest_ns` is where what a workspace's plan retains begins; `month_ns` is the plans' month, and `since_ns` are the
    other beginnings.
    """
    since = dict(zip(("today", "week", "month"), since_ns, strict=True))
    counts = ", ".join(f"count(*) filter (where timestamp_ns >= greatest(oldest_ns, ${name}_ns))" for name in since)
    return Query(
        f"""
        select workspace_id, {", ".join(f"cast(sum({name}) as bigint)" for name in Totals._fields)} from (
            select workspace_id, count(*) filter (where timestamp_ns >= $used_ns and {_COUNTS_AGAINST_LIMIT}), {counts}
            from calls join (
                select unnest(cast($workspace_ids as text[])) as workspace_id,
                    unnest(cast($oldest_ns as bigint[])) as oldest_ns
            ) as asked using (workspace_id)
            where timestamp_ns >= $from_ns and timestamp_ns < $to_ns
            group by workspace_id
            union all
            select workspace_id, calls, 0, 0, 0 from deleted_usage
            where workspace_id = any($workspace_ids) and day_ns >= $used_ns and day_ns < $to_ns
        ) as counted(workspace_id, {", ".join(Totals._fields)})
        group by workspace_id
        """,  # noqa: S608 - constants
        {
            "workspace_ids": list(oldest_ns),
            "oldest_ns": list(oldest_ns.values()),
            **{f"{name}_ns": begin for name, begin in since.items()},
            "used_ns": month_ns,
            "from_ns": min(month_ns, *since_ns),
            "to_ns": to_ns,
            "refused": list(REFUSED_BY_LIMITS),
        },
    )


class _Usage(NamedTuple):
    """The conditions on the rows that there are, and on the counts of those that there were."""

    kept: str
    deleted: str
    parameters: Mapping[str, object]


def _usage(scope: Scope) -> _Usage:
    where, parameters = _where(replace(scope, filters={"token": scope.filters.get("token", ())}))
    return _Usage(
        f"{where} and {_COUNTS_AGAINST_LIMIT}",
        where.replace("timestamp_ns", "day_ns"),
        {**parameters, "refused": list(REFUSED_BY_LIMITS)},
    )
