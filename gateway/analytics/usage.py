"""Calls against the plan's limit, and when it will be reached.

The limit counts a calendar month in UTC, whatever zone a reader lives in. Calls that a limit itself rejected
(`rate_limited`, `quota_exceeded`) do not count; calls that the plan's retention has deleted since do.
"""

from collections.abc import Iterable
from typing import Final

from gateway.analytics.models import MeteredCalls, PlanUsage, WorkspaceUsage
from gateway.analytics.periods import oldest_ns, rfc3339, starts
from gateway.analytics.query import AnalyticsQuery
from gateway.ledger import Snapshot, queries
from gateway.ledger.queries import Totals
from gateway.months import DAY_NS, Month, month_of

LEAST_ELAPSED_NS: Final = DAY_NS
"""On a month's first day, the pace is that of a whole day: a burst of a minute says nothing about a month."""


def current_totals(snapshot: Snapshot, query: AnalyticsQuery) -> Totals:
    """The calls until now, whatever the range is; filters narrow down all but what counts against the plan."""
    access, now_ns = query.access, query.now_ns
    oldest = oldest_ns(now_ns, access.plan.retention_days)
    rows = snapshot.rows(
        queries.totals(
            [access.workspace_id],
            month_ns=month_of(now_ns).start_ns,
            since_ns=[max(begin, oldest) for begin in starts(now_ns, query.parameters.zone)],
            to_ns=now_ns,
            token=access.member,
            filters=query.filters,
        )
    )
    return Totals(*rows[0][1:]) if rows else Totals()


def usage(snapshot: Snapshot, query: AnalyticsQuery) -> WorkspaceUsage:
    """The month's calls, whatever the filters are; those of one member if the bearer is bound to one."""
    return usage_of(current_totals(snapshot, query).used, snapshot, query)


def usage_of(used: int, snapshot: Snapshot, query: AnalyticsQuery) -> WorkspaceUsage:
    """The usage if it is known how many calls count."""
    month = month_of(query.now_ns)
    limit = query.access.plan.calls_per_month
    if limit is not None and used >= limit:
        days = snapshot.rows(queries.used_by_day(query.unfiltered(month.start_ns)))
        exhausted_ns: int | None = reached_on(days, limit, month)
    else:
        exhausted_ns = reaches(used, limit, month, query.now_ns)
    plan_usage = PlanUsage(
        used=used,
        limit=limit,
        remaining=None if limit is None else max(limit - used, 0),
        projected=projected(used, month, query.now_ns),
        exhausted_on=None if exhausted_ns is None else rfc3339(exhausted_ns)[:10],
    )
    tier = query.access.workspace.plan
    return WorkspaceUsage(tier=tier, period=month.label, usage=MeteredCalls(mcp_proxy_calls=plan_usage))


def projected(used: int, month: Month, now_ns: int) -> int:
    """The calls at the month's end if the pace stays the same."""
    return used + round(used * (month.end_ns - now_ns) / _elapsed_ns(month, now_ns))


def reaches(used: int, limit: int | None, month: Month, now_ns: int) -> int | None:
    """When the limit will be reached at that pace; None if not before the month ends."""
    if limit is None or used == 0:
        return None
    moment = now_ns + _elapsed_ns(month, now_ns) * (limit - used) // used
    return moment if moment < month.end_ns else None


def reached_on(days: Iterable[tuple[int, int]], limit: int, month: Month) -> int:
    """When the day began on which the limit was reached; `days` are those with calls, in order, and how many."""
    total = 0
    for day_ns, calls in days:
        total += calls
        if total >= limit > 0:
            return day_ns
    return month.start_ns  # a limit of 0


def _elapsed_ns(month: Month, now_ns: int) -> int:
    return max(now_ns - month.start_ns, LEAST_ELAPSED_NS)
