"""Calls against the plan's limit, and when it will be reached. Pure but for `usage`, which asks the ledger.

The limit is one of a calendar month in UTC, whatever zone a reader lives in. Calls that a limit itself refused
(`rate_limited`, `quota_exceeded`) are not counted.
"""

from typing import Any

from gateway.analytics.periods import Month, month_of, rfc3339
from gateway.analytics.question import Question
from gateway.ledger import Snapshot, queries


def usage(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """The month's calls, all of them whatever is filtered; those of one member if the bearer is bound to one."""
    month = month_of(question.now_ns)
    limit = question.access.plan.calls_per_month
    scope = question.unfiltered(month.start_ns, question.now_ns)
    [(used,)] = snapshot.rows(queries.used(scope))
    if limit is not None and used >= limit:
        reached = snapshot.rows(queries.nth_used(scope, limit)) if limit else []
        exhausted_ns = reached[0][0] if reached else month.start_ns
    else:
        exhausted_ns = reaches(used, limit, month, question.now_ns)
    return {
        "tier": question.access.workspace.plan,
        "period": month.label,
        "usage": {
            "mcp_proxy_calls": {
                "used": used,
                "limit": limit,
                "remaining": None if limit is None else max(limit - used, 0),
                "projected": projected(used, month, question.now_ns),
                "exhausted_on": None if exhausted_ns is None else rfc3339(exhausted_ns)[:10],
            }
        },
    }


def projected(used: int, month: Month, now_ns: int) -> int:
    """The calls at the month's end, if it goes on as it went so far."""
    elapsed_ns = now_ns - month.start_ns
    return used if elapsed_ns <= 0 else round(used * (month.end_ns - month.start_ns) / elapsed_ns)


def reaches(used: int, limit: int | None, month: Month, now_ns: int) -> int | None:
    """When the limit will be reached at that pace; None if not before the month ends."""
    if limit is None or used == 0:
        return None
    moment = month.start_ns + (now_ns - month.start_ns) * limit // used
    return moment if moment < month.end_ns else None
