"""Who calls, what, how often, and when last. Members are named; the id stays in the label `token`, for links."""

from dashboards.promql import Scope, aggregate, highest, increase, ratio, top, total, with_names
from dashboards.queries import calls
from dashboards.queries.calls import MEMBER
from gateway.observer.signals import TOKEN_INFO, TOKEN_LAST_USED, TOOL_CALLS


def count(scope: Scope, *by: str) -> str:
    """Calls of each member."""
    return with_names(scope, calls.count(scope, *MEMBER, *by))


def most_active(scope: Scope, few: int) -> str:
    """The members with the most calls."""
    return top(few, with_names(scope, f"{calls.count(scope, *MEMBER)} > 0"))


def most_failing(scope: Scope, few: int) -> str:
    """The members of whose calls the highest share failed."""
    return top(few, with_names(scope, f"{failure_ratio_by_id(scope)} > 0"))


def favorites(scope: Scope, few: int) -> str:
    """Of each member, the tools with the most calls."""
    used = f"{calls.count(scope, *MEMBER, 'server', 'tool')} > 0"
    return with_names(scope, f"topk by (workspace, token) ({few}, {used})")


def per_minute(scope: Scope) -> str:
    """Calls a minute of each member, over time."""
    return with_names(scope, calls.per_minute(scope, *MEMBER))


def failures_per_minute(scope: Scope) -> str:
    """Failed calls a minute of each member, over time."""
    return with_names(scope, calls.failures_per_minute(scope, *MEMBER))


def failure_ratio(scope: Scope) -> str:
    """The share of each member's calls that failed."""
    return with_names(scope, failure_ratio_by_id(scope))


def failure_ratio_by_id(scope: Scope) -> str:
    """The same, by token."""
    return calls.failure_ratio(scope, *MEMBER)


def average(scope: Scope) -> str:
    """Seconds that upstreams took for each member's calls, on average."""
    return with_names(scope, calls.average(scope, *MEMBER))


def duration(scope: Scope, share: float) -> str:
    """A quantile of what upstreams took for each member's calls, in seconds."""
    return with_names(scope, calls.duration(scope, share, *MEMBER))


def duration_over_time(scope: Scope, share: float) -> str:
    """The same, over time."""
    return with_names(scope, calls.duration_over_time(scope, share, *MEMBER))


def last_used(scope: Scope) -> str:
    """When each member's last request began, in milliseconds since the Unix epoch."""
    return with_names(scope, f"1000 * {highest(scope.select(TOKEN_LAST_USED), *MEMBER)}")


def tools_used(scope: Scope) -> str:
    """How many different tools each member called."""
    return with_names(scope, f"count by (workspace, token) ({calls.count(scope, *MEMBER, 'server', 'tool')} > 0)")


def configured(scope: Scope) -> str:
    """How many tokens the configuration has."""
    return f"count({highest(scope.select(TOKEN_INFO), *MEMBER)})"


def idle(scope: Scope) -> str:
    """How many of them sent no request in the time range."""
    known = f"group by (workspace, token) ({scope.select(TOKEN_INFO)})"
    used = f"{highest(scope.select(TOKEN_LAST_USED), *MEMBER)} > time() - $__range_s"
    return f"count({known} unless {used}) or vector(0)"


def share_of_bots(scope: Scope) -> str:
    """The share of calls that bots made."""
    made = calls.count(scope, *MEMBER)
    bots = aggregate("group", MEMBER, scope.select(TOKEN_INFO, 'kind="bot"'))
    return ratio(f"sum({made} and on (workspace, token) {bots})", f"sum({made})")


def refused(scope: Scope) -> str:
    """Calls that a limit refused, of each member."""
    limits = 'error_type=~"rate_limited|quota_exceeded"'
    return with_names(scope, f"{total(increase(scope.select(TOOL_CALLS, limits)), *MEMBER)} > 0")
