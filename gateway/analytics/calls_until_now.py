"""A workspace's calls until now: of today, this week, this month, and of its plan, for overview and usage."""

from gateway.analytics.periods import oldest_ns, starts
from gateway.analytics.query import AnalyticsQuery
from gateway.ledger import Snapshot
from gateway.ledger.totals import Totals, totals
from gateway.months import month_of


def calls_until_now(snapshot: Snapshot, query: AnalyticsQuery) -> Totals:
    """Counted whatever the range is; filters narrow down all but what is used of the plan."""
    access, now_ns = query.access, query.now_ns
    oldest = oldest_ns(now_ns, access.plan.retention_days)
    asked = totals(
        [access.workspace_id],
        month_ns=month_of(now_ns).start_ns,
        since_ns=[max(begin, oldest) for begin in starts(now_ns, query.parameters.zone)],
        to_ns=now_ns,
        token=access.member,
        filters=query.filters,
    )
    for _, *counts in snapshot.rows(asked):
        return Totals(*counts)
    return Totals()
