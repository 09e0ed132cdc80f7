"""How many calls there are until now: what overview, usage and the exact gauges say, in one statement."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.ledger.queries import COUNTS_AGAINST_LIMIT, Filters, Query, filter_condition


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
    among = {f"workspace_{place}": workspace_id for place, workspace_id in enumerate(workspace_ids)}
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
        """,  # noqa: S608 - constants
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
