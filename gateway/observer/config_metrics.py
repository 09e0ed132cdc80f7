"""Gauges that say what the configuration says: tokens, workspaces, plans, and the ledger's count beside the limit."""

from collections.abc import Callable, Iterator, Mapping

from gateway.config import Config
from gateway.ledger.totals import Totals
from gateway.months import month_of
from gateway.observer import signals
from gateway.observer.samples import Family, Reading

Usage = Callable[[], Mapping[str, Totals]]
"""What the ledger has counted, by workspace id; empty while it is away."""


def read_configured(config: Config, now_ns: int, usage: Usage) -> Iterator[Family]:
    """The gauges at `now_ns`; a workspace that `usage` does not name has no usage."""
    workspaces = config.workspaces
    yield Family(
        signals.TOKEN_INFO,
        [
            Reading((slug, token.id, token.name, token.kind), 1)
            for slug, workspace in workspaces.items()
            for token in workspace.tokens
        ],
    )
    yield Family(
        signals.WORKSPACE_INFO,
        [Reading((slug, workspace.name or slug, workspace.plan), 1) for slug, workspace in workspaces.items()],
    )
    limits = {slug: config.plan_of(workspace).calls_per_month for slug, workspace in workspaces.items()}
    yield Family(
        signals.PLAN_LIMIT_CALLS,
        [Reading((slug, workspaces[slug].plan), limit) for slug, limit in limits.items() if limit is not None],
    )
    period_end = month_of(now_ns).end_ns / 1e9
    yield Family(signals.USAGE_PERIOD_END, [Reading((slug,), period_end) for slug in workspaces])
    counted = [(slug, totals) for slug, totals in usage().items() if slug in workspaces]
    yield Family(signals.USAGE_CALLS, [Reading((slug,), totals.used) for slug, totals in counted])
    yield Family(
        signals.LEDGER_CALLS,
        [
            Reading((slug, period), calls)
            for slug, totals in counted
            for period, calls in (("today", totals.today), ("week", totals.week), ("month", totals.month))
        ],
    )
