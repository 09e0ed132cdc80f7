"""Calls against the plan's limit, as the ledger counts them, and when it will be reached at this month's pace.

The pace is the one of the analytics API: this month's calls over the time that has passed of it, in UTC.
"""

from typing import Final

from dashboards.promql import Scope, highest
from gateway.observer.signals import PLAN_LIMIT_CALLS, USAGE_CALLS, USAGE_PERIOD_END

NOT_REACHED: Final = -1
"""A moment that there is not: before there were any."""
_WORKSPACE: Final = ("job", "workspace")
"""Gateways that have nothing to do with each other have jobs of their own, and perhaps workspaces of one name."""
_MONTH: Final = "86400 * scalar(days_in_month(vector(time())))"
"""The length of this month in UTC, in seconds."""


def used(scope: Scope) -> str:
    """This month's calls that count against the limit. Every replica says the same: the highest is the newest."""
    return highest(scope.select(USAGE_CALLS), *_WORKSPACE)


def limit(scope: Scope) -> str:
    """What the plan allows; nothing if it is unlimited."""
    return highest(scope.select(PLAN_LIMIT_CALLS), *_WORKSPACE)


def plan(scope: Scope) -> str:
    """The limit, with the plan's name."""
    return highest(scope.select(PLAN_LIMIT_CALLS), *_WORKSPACE, "plan")


def period_end(scope: Scope) -> str:
    """When the month ends, in seconds since the Unix epoch."""
    return highest(scope.select(USAGE_PERIOD_END), *_WORKSPACE)


def period_end_ms(scope: Scope) -> str:
    """The same in milliseconds, as Grafana shows dates."""
    return f"1000 * {period_end(scope)}"


def share(scope: Scope) -> str:
    """The share of the limit that is used."""
    return f"{used(scope)} / {limit(scope)}"


def remaining(scope: Scope) -> str:
    """The calls that are left."""
    return f"clamp_min({limit(scope)} - {used(scope)}, 0)"


def _elapsed(scope: Scope) -> str:
    """Seconds since the month began, at least a day: one busy minute makes no pace."""
    return f"clamp_min(time() - {period_end(scope)} + {_MONTH}, 86400)"


def projected(scope: Scope) -> str:
    """The calls at the month's end, if it goes on as it went so far."""
    return f"{used(scope)} * (1 + ({period_end(scope)} - time()) / {_elapsed(scope)})"


def projected_share(scope: Scope) -> str:
    """The same, as a share of the limit."""
    return f"({projected(scope)}) / {limit(scope)}"


def reached(scope: Scope) -> str:
    """When the limit is reached at that pace, in milliseconds since the Unix epoch; `NOT_REACHED` if not this month."""
    moment = f"time() + {_elapsed(scope)} * ({limit(scope)} - {used(scope)}) / ({used(scope)} > 0)"
    return f"1000 * ({moment} < {period_end(scope)}) or 0 * {used(scope)} + {NOT_REACHED}"


def calls_a_day(scope: Scope) -> str:
    """The pace: calls a day of this month so far."""
    return f"86400 * {used(scope)} / {_elapsed(scope)}"


def calls_a_day_left(scope: Scope) -> str:
    """The calls a day that the limit leaves for the rest of the month."""
    return f"86400 * clamp_min({limit(scope)} - {used(scope)}, 0) / ({period_end(scope)} - time() > 0)"
