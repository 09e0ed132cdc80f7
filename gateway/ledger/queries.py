"""The ledger's queries as SQL: pure functions, in the dialect that DuckDB and PostgreSQL share.

Every query but `used_by_every_workspace` and those of `totals` is bound to one workspace. Values are parameters,
written `$name`; only names of columns, which come from the tables below, are part of a text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args

from gateway.calls import COLUMN_OF, Dimension, ErrorType, ToolCall
from gateway.ledger.rows import COLUMNS
from gateway.months import DAY_NS

NamedDimension = Literal["server", "tool", "token"]
NAMED_DIMENSIONS: Final[tuple[NamedDimension, ...]] = get_args(NamedDimension)
"""The dimensions whose values are names: the table `seen` has those that were ever called."""
Filters = Mapping[Dimension, tuple[str, ...]]
"""The values that a dimension may have; none is all."""

REFUSED_BY_LIMITS: Final = (ErrorType.RATE_LIMITED.value, ErrorType.QUOTA_EXCEEDED.value)
"""Failures that do not count: a call that a limit rejected must not bring the limit nearer."""

COUNTS_AGAINST_LIMIT: Final = "(error_type is null or error_type not in ({}))".format(
    ", ".join(f"'{error_type}'" for error_type in REFUSED_BY_LIMITS)
)
"""Written out: DuckDB compares with a list of constants in half the time that a list in a parameter takes."""

_SELECT: Final = f"select {', '.join(COLUMNS)} from calls"
_COUNTS: Final = "count(*), count(*) filter (where status = 'error'), max(timestamp_ns), avg(duration_ms)"
PERCENTILES: Final = "percentile_cont(array[0.5, 0.95, 0.99]) within group (order by duration_ms)"
"""One aggregate with three answers: durations are collected and put in order once."""


class Query(NamedTuple):
    """SQL and the values of its `$name` parameters."""

    sql: str
    parameters: Mapping[str, object] = MappingProxyType({})


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
        """The last columns of a row of `grouping_query` or `groups`."""
        *_, calls, errors, last_ns, avg_ms, percentiles = row
        return cls(calls, errors, last_ns, avg_ms, *(percentiles or (None, None, None)))


NO_CALLS: Final = Measures(0, 0, None, None, None, None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The calls of one workspace in [`from_ns`, `to_ns`) that have, for each filter, one of its values."""

    workspace_id: str
    from_ns: int
    to_ns: int
    filters: Filters


def where(scope: Scope) -> Query:
    """The condition on `calls` that a scope is."""
    condition, values = filter_condition(scope.filters)
    return Query(
        f"workspace_id = $workspace_id and timestamp_ns >= $from_ns and timestamp_ns < $to_ns{condition}",
        {"workspace_id": scope.workspace_id, "from_ns": scope.from_ns, "to_ns": scope.to_ns, **values},
    )


def filter_condition(filters: Filters) -> Query:
    """The condition that filters are, as more of one: it is empty, or begins with `and`."""
    conditions, parameters = "", dict[str, object]()
    for dimension, values in filters.items():
        if values:
            named = {f"only_{dimension}_{i}": value for i, value in enumerate(values)}
            conditions += f" and {COLUMN_OF[dimension]} in ({', '.join(f'${name}' for name in named)})"
            parameters |= named
    return Query(conditions, parameters)


def groups(scope: Scope, by: Sequence[Dimension]) -> Query:
    """A row for each combination that occurs: the values of `by`, then `Measures`. Without `by`, the row of all."""
    condition, parameters = where(scope)
    keys = ", ".join(COLUMN_OF[dimension] for dimension in by)
    selected = f"{keys}, " if by else ""
    grouped = f"group by {keys}" if by else ""
    return Query(f"select {selected}{_COUNTS}, {PERCENTILES} from calls where {condition} {grouped}", parameters)


class OriginChange(NamedTuple):
    """From `from_ns` on, buckets are counted from `origin_ns`."""

    from_ns: int
    origin_ns: int


def timeline(
    scope: Scope, by: Dimension | None, *, origin_ns: int, step_ns: int, origin_changes: Sequence[OriginChange] = ()
) -> Query:
    """A row for each bucket and value of `by` that occurs: nanoseconds from the origin, value, calls, errors.

    `origin_ns` is not after the scope's begin. It is another one from each of `origin_changes` on, which are in order.
    """
    condition, parameters = where(scope)
    value = COLUMN_OF[by] if by else "''"
    since = "".join(f"when timestamp_ns >= $shift_{i} then $shifted_{i} " for i in reversed(range(len(origin_changes))))
    origin = f"case {since}else $origin_ns end" if origin_changes else "$origin_ns"
    for i, change in enumerate(origin_changes):
        parameters = {**parameters, f"shift_{i}": change.from_ns, f"shifted_{i}": change.origin_ns}
    return Query(
        f"""
        select since_origin - mod(since_origin, $step_ns), value, count(*), count(*) filter (where status = 'error')
        from (
            select timestamp_ns - {origin} as since_origin, {value} as value, status from calls where {condition}
        ) as c
        group by 1, 2
        """,
        {**parameters, "origin_ns": origin_ns, "step_ns": step_ns},
    )


class PagePosition(NamedTuple):
    """A call's position in the order of pages: by timestamp, then by call id."""

    timestamp_ns: int
    call_id: str


def page(scope: Scope, *, after: PagePosition | None, limit: int) -> Query:
    """The newest calls of the scope, or those that come after `after` in that order; rows as `COLUMNS`."""
    condition, parameters = where(scope)
    if after is not None:
        # The first condition follows from the second, but lets an index by time be used.
        condition += " and timestamp_ns <= $after_ns and (timestamp_ns < $after_ns or call_id < $after_id)"
        parameters = {**parameters, "after_ns": after.timestamp_ns, "after_id": after.call_id}
    return Query(
        f"{_SELECT} where {condition} order by timestamp_ns desc, call_id desc limit $limit",
        {**parameters, "limit": limit},
    )


def oldest_first(scope: Scope, *, limit: int | None) -> Query:
    """The calls of the scope, or the oldest `limit` of them; rows as `COLUMNS`."""
    condition, parameters = where(scope)
    oldest = Query(f"{_SELECT} where {condition} order by timestamp_ns, call_id", parameters)
    return oldest if limit is None else Query(f"{oldest.sql} limit $limit", {**parameters, "limit": limit})


def call(scope: Scope, call_id: str) -> Query:
    """The call of this id, if it is in the scope: a row as `COLUMNS`."""
    condition, parameters = where(scope)
    return Query(f"{_SELECT} where {condition} and call_id = $call_id limit 1", {**parameters, "call_id": call_id})


def used_by_day(scope: Scope) -> Query:
    """A row for each UTC day with calls that count against the limit: when it began, and how many; in order.

    Deleted calls are included. The scope begins with a day, and only its tokens are filtered.
    """
    condition, parameters = where(replace(scope, filters={"token": scope.filters.get("token", ())}))
    deleted = condition.replace("timestamp_ns", "day_ns")
    return Query(
        f"""
        select day_ns, cast(sum(calls) as bigint) from (
            select timestamp_ns - mod(timestamp_ns, $day) as day_ns, 1 as calls from calls
            where {condition} and {COUNTS_AGAINST_LIMIT}
            union all
            select day_ns, calls from deleted_usage where {deleted}
        ) as used
        group by day_ns order by day_ns
        """,
        {**parameters, "day": DAY_NS},
    )


def used_by_every_workspace(from_ns: int, to_ns: int) -> Query:
    """A row for each workspace with calls that count against the limit: its id, and how many, deleted ones included."""
    return Query(
        f"""
        select workspace_id, cast(sum(calls) as bigint) from (
            select workspace_id, count(*) as calls from calls
            where timestamp_ns >= $from_ns and timestamp_ns < $to_ns and {COUNTS_AGAINST_LIMIT}
            group by workspace_id
            union all
            select workspace_id, calls from deleted_usage where day_ns >= $from_ns and day_ns < $to_ns
        ) as used
        group by workspace_id
        """,
        {"from_ns": from_ns, "to_ns": to_ns},
    )


class Totals(NamedTuple):
    """A workspace's calls until now."""

    used: int = 0
    """Those that count against the plan's limit this month, deleted ones among them."""
    today: int = 0
    week: int = 0
    month: int = 0


_SUMS: Final = ", ".join(f"cast(sum({name}) as bigint)" for name in Totals._fields)


def totals(
    workspace_ids: Sequence[str],
    *,
    month_ns: int,
    since_ns: Sequence[int],
    to_ns: int,
    token: str | None = None,
    filters: Filters | None = None,
) -> Query:
    """A row for each of the workspaces that has calls: its id, then `Totals`.

    `used` begins at `month_ns`, the plans' month, and the other three at `since_ns`. With `token` all of them are its
    calls alone; `filters` are for the three.
    """
    among = {f"workspace_{i}": workspace_id for i, workspace_id in enumerate(workspace_ids)}
    since = dict(zip(("today", "week", "month"), since_ns, strict=True))
    chosen, values = filter_condition(filters or {})
    counts = ", ".join(f"count(*) filter (where timestamp_ns >= ${name}_ns {chosen})" for name in since)
    owned = f"workspace_id in ({', '.join(f'${name}' for name in among)})" + (
        "" if token is None else " and token_id = $token"
    )
    return Query(
        f"""
        select workspace_id, {_SUMS} from (
            select workspace_id, count(*) filter (where timestamp_ns >= $used_ns and {COUNTS_AGAINST_LIMIT}), {counts}
            from calls where {owned} and timestamp_ns >= $from_ns and timestamp_ns < $to_ns
            group by workspace_id
            union all
            select workspace_id, calls, 0, 0, 0 from deleted_usage
            where {owned} and day_ns >= $used_ns and day_ns < $to_ns
        ) as counted(workspace_id, {", ".join(Totals._fields)})
        group by workspace_id
        """,
        {
            **among,
            **values,
            **{f"{name}_ns": begin for name, begin in since.items()},
            "used_ns": month_ns,
            "from_ns": min(month_ns, *since_ns),
            "to_ns": to_ns,
            **({} if token is None else {"token": token}),
        },
    )


def tools_ever_called(scope: Scope) -> Query:
    """Each server and tool that was ever called before the scope's end, by one of its tokens."""
    where, parameters = _seen(scope)
    return Query(f"select distinct server_slug, tool_name from seen where {where}", parameters)


def ever_called(scope: Scope, dimension: NamedDimension, values: Sequence[str]) -> Query:
    """Those of `values` that a call had, before the scope's end and by one of its tokens."""
    where, parameters = _seen(scope)
    column = COLUMN_OF[dimension]
    return Query(
        f"select distinct {column} from seen where {where} and {column} = any($values)",
        {**parameters, "values": list(values)},
    )


def _seen(scope: Scope) -> Query:
    tokens = scope.filters.get("token", ())
    condition = " and token_id = any($tokens)" if tokens else ""
    parameters: dict[str, object] = {"workspace_id": scope.workspace_id, "to_ns": scope.to_ns}
    return Query(
        f"workspace_id = $workspace_id and first_ns < $to_ns{condition}",
        {**parameters, "tokens": list(tokens)} if tokens else parameters,
    )


def record_first_seen(calls: Iterable[ToolCall]) -> Query:
    """Insert the names of stored calls that are new, or whose call is older than all before it."""
    first: dict[tuple[str, str, str, str], int] = {}
    for call in calls:
        names = (call.workspace_id, call.token_id, call.server_slug, call.tool_name)
        first[names] = min(call.timestamp_ns, first.get(names, call.timestamp_ns))
    # In one order, or two writers could deadlock.
    rows = sorted((*names, first_ns) for names, first_ns in first.items())
    workspaces, tokens, servers, tools, times = (list(column) for column in zip(*rows, strict=True))
    return Query(
        """
        insert into seen (workspace_id, token_id, server_slug, tool_name, first_ns)
        select * from (
            select unnest(cast($workspaces as text[])) as workspace_id, unnest(cast($tokens as text[])) as token_id,
                unnest(cast($servers as text[])) as server_slug, unnest(cast($tools as text[])) as tool_name,
                unnest(cast($times as bigint[])) as first_ns
        ) as called
        where not exists (
            select 1 from seen where seen.workspace_id = called.workspace_id and seen.token_id = called.token_id
                and seen.server_slug = called.server_slug and seen.tool_name = called.tool_name
                and seen.first_ns <= called.first_ns
        )
        on conflict (workspace_id, token_id, server_slug, tool_name)
            do update set first_ns = least(seen.first_ns, excluded.first_ns)
        """,
        {"workspaces": workspaces, "tokens": tokens, "servers": servers, "tools": tools, "times": times},
    )
