"""How many calls, how many of them failed and why, and how long upstreams took.

Counts over `$__range` are `increase`, which extrapolates: right to a percent or two, not to the call. Exact are those
of whole workspaces (`success_ratio_of_all`, `average_of_all`, `active_members`), and the ledger's own.
"""

from typing import Final, Literal

from dashboards.promql import (
    RANGE,
    Scope,
    aggregate,
    gained,
    highest,
    increase,
    or_zero,
    quantile,
    rate,
    ratio,
    top,
    total,
)
from dashboards.recording_rules import CALLS, CALLS_BY_STATUS, CALLS_BY_TOKEN, DURATION_COUNT, DURATION_SUM, counted
from gateway.observer.signals import LEDGER_CALLS, PHASE_DURATION, TOOL_CALL_DURATION, TOOL_CALLS, Metric

FAILED: Final = 'status="error"'
TOOL: Final = ("workspace", "server", "tool")
SERVER: Final = ("workspace", "server")
MEMBER: Final = ("workspace", "token")


def count(scope: Scope, *by: str) -> str:
    """Calls."""
    return total(increase(scope.select(TOOL_CALLS)), *by)


def count_in_ledger(scope: Scope, period: Literal["today", "week", "month"]) -> str:
    """Calls since midnight, Monday or the first in UTC. Every replica says the same: the highest is the newest."""
    return total(highest(scope.select(LEDGER_CALLS, f'period="{period}"'), "job", "workspace"))


def count_over_weeks(scope: Scope, *by: str) -> str:
    """Calls, of a time range that is too long for raw samples."""
    return total(counted(scope, CALLS, RANGE), *by)


def count_each_day(scope: Scope, *by: str) -> str:
    """Calls of the last day, at each point in time."""
    return total(counted(scope, CALLS, "1d"), *by)


def failures(scope: Scope, *by: str) -> str:
    """Calls that failed."""
    return total(increase(scope.select(TOOL_CALLS, FAILED)), *by)


def per_minute(scope: Scope, *by: str) -> str:
    """Calls a minute, over time."""
    return f"60 * {total(rate(scope.select(TOOL_CALLS)), *by)}"


def failures_per_minute(scope: Scope, *by: str) -> str:
    """Failed calls a minute, over time."""
    return f"60 * {total(rate(scope.select(TOOL_CALLS, FAILED)), *by)}"


def failure_ratio(scope: Scope, *by: str) -> str:
    """The share of calls that failed."""
    return ratio(failures(scope, *by), count(scope, *by))


def failure_ratio_over_time(scope: Scope, *by: str) -> str:
    """The share of calls that failed, over time."""
    failed = total(rate(scope.select(TOOL_CALLS, FAILED)), *by)
    return ratio(failed, total(rate(scope.select(TOOL_CALLS)), *by))


def success_ratio_of_all(scope: Scope) -> str:
    """The share of a workspace's calls that succeeded."""
    failed = total(gained(scope.recorded(CALLS_BY_STATUS, FAILED)))
    return f"1 - {ratio(failed, total(gained(scope.recorded(CALLS_BY_STATUS))))}"


def average(scope: Scope, *by: str) -> str:
    """Seconds that an upstream took, on average."""
    took = total(increase(scope.select(TOOL_CALL_DURATION, suffix="_sum")), *by)
    return f"{took} / ({total(increase(scope.select(TOOL_CALL_DURATION, suffix='_count')), *by)} > 0)"


def average_of_all(scope: Scope) -> str:
    """The same of all of a workspace's calls."""
    return f"{total(gained(scope.recorded(DURATION_SUM)))} / ({total(gained(scope.recorded(DURATION_COUNT)))} > 0)"


def average_over_time(scope: Scope, *by: str) -> str:
    """Seconds that an upstream took, on average, over time."""
    took = total(rate(scope.select(TOOL_CALL_DURATION, suffix="_sum")), *by)
    return f"{took} / ({total(rate(scope.select(TOOL_CALL_DURATION, suffix='_count')), *by)} > 0)"


def duration(scope: Scope, share: float, *by: str, metric: Metric = TOOL_CALL_DURATION) -> str:
    """A quantile of a duration, in seconds."""
    return quantile(share, increase(scope.select(metric, suffix="_bucket")), *by)


def duration_over_time(scope: Scope, share: float, *by: str, metric: Metric = TOOL_CALL_DURATION) -> str:
    """A quantile of a duration, in seconds, over time."""
    return quantile(share, rate(scope.select(metric, suffix="_bucket")), *by)


def distribution(scope: Scope, metric: Metric = TOOL_CALL_DURATION) -> str:
    """How many calls took how long, over time: a heatmap's buckets."""
    return total(increase(scope.select(metric, suffix="_bucket"), "$__rate_interval"), "le")


def phase_average_over_time(scope: Scope) -> str:
    """Seconds of each phase of a call, on average, over time."""
    took = total(rate(scope.select(PHASE_DURATION, suffix="_sum")), "phase")
    return f"{took} / ({total(rate(scope.select(PHASE_DURATION, suffix='_count')), 'phase')} > 0)"


def most_called(scope: Scope, few: int) -> str:
    """The tools with the most calls."""
    return top(few, f"{count(scope, *TOOL)} > 0")


def most_failing(scope: Scope, few: int) -> str:
    """The tools with the highest share of failed calls; not those of which none failed."""
    return top(few, f"{failure_ratio(scope, *TOOL)} > 0")


def slowest(scope: Scope, few: int) -> str:
    """The tools that take the longest, on average."""
    return top(few, average(scope, *TOOL))


def tools_called(scope: Scope, *by: str) -> str:
    """How many different tools were called."""
    return aggregate("count", by, f"{count(scope, *TOOL)} > 0")


def active_members(scope: Scope) -> str:
    """How many tokens called a tool."""
    return or_zero(f"count({total(f'changes({scope.recorded(CALLS_BY_TOKEN)}[{RANGE}])', *MEMBER)} > 0)")
