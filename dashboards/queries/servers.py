"""Are the upstream servers there, how much is asked of them, and what their catalogs cost."""

from typing import Final

from dashboards.promql import RATE, Scope, aggregate, highest, increase, or_zero, quantile, rate, total
from dashboards.queries import calls
from dashboards.queries.calls import SERVER
from gateway.observer.signals import (
    IN_FLIGHT_CALLS,
    PHASE_DURATION,
    TOOL_CALLS,
    TOOLS,
    TOOLS_LIST_BYTES,
    UPSTREAM_LAST_SUCCESS,
    UPSTREAM_UP,
)

UPSTREAM_BUCKET: Final = "workspace_server_le:mcp_gateway_upstream_duration_seconds_bucket:increase5m"
UPSTREAM_SUM: Final = "workspace_server:mcp_gateway_upstream_duration_seconds_sum:increase5m"
"""Recording rules of the calls that were sent upstream: without those that the gateway refused, which took no time."""
RECORDED_EVERY: Final = "1m"
"""How often those rules are evaluated: a chart of them has no points that are closer."""


def up(scope: Scope) -> str:
    """1 if every relay reached the server when it last asked, else 0; nothing before it was asked."""
    return aggregate("min", SERVER, scope.select(UPSTREAM_UP))


def up_count(scope: Scope) -> str:
    """How many servers are up."""
    return or_zero(f"count({up(scope)} == 1)")


def down_count(scope: Scope) -> str:
    """How many servers are not."""
    return or_zero(f"count({up(scope)} == 0)")


def availability(scope: Scope) -> str:
    """The share of the time range in which the server was up."""
    return aggregate("min", SERVER, f"avg_over_time({scope.select(UPSTREAM_UP)}[$__range])")


def last_success(scope: Scope) -> str:
    """When the server last answered, in milliseconds since the Unix epoch."""
    return f"1000 * {highest(scope.select(UPSTREAM_LAST_SUCCESS), *SERVER)}"


def in_flight(scope: Scope, *by: str) -> str:
    """Calls that have started and not ended."""
    return total(scope.select(IN_FLIGHT_CALLS), *by)


def tools(scope: Scope, *by: str) -> str:
    """Tools on offer; each replica says how many."""
    return total(highest(scope.select(TOOLS), *SERVER), *by)


def catalog_bytes(scope: Scope, *by: str) -> str:
    """What all of the tools' descriptions take in `tools/list`."""
    return total(highest(scope.select(TOOLS_LIST_BYTES), *SERVER), *by)


def tools_never_called(scope: Scope) -> str:
    """How many of each server's tools nobody called; never less than none, though a tool that is gone was called."""
    known = increase(scope.select(TOOL_CALLS, 'tool!="_unknown"'))
    called = aggregate("count", SERVER, f"{total(known, *calls.TOOL)} > 0")
    offered = tools(scope, *SERVER)
    return f"clamp_min({offered} - ({called} or 0 * {offered}), 0)"


def average_latency(scope: Scope) -> str:
    """Seconds that a server took for a call that was sent to it, on average, over time."""
    sent = total(_over_time(scope.recorded(UPSTREAM_BUCKET, 'le="+Inf"')), *SERVER)
    return f"{total(_over_time(scope.recorded(UPSTREAM_SUM)), *SERVER)} / ({sent} > 0)"


def latency(scope: Scope, share: float) -> str:
    """A quantile of what a server took for a call that was sent to it, in seconds, over time."""
    return quantile(share, _over_time(scope.recorded(UPSTREAM_BUCKET)), *SERVER)


def _over_time(selector: str) -> str:
    """What the rules recorded since the point before. Windows overlap, which neither quotient nor quantile minds."""
    return f"sum_over_time({selector}[{RATE}])"


def waiting(scope: Scope, share: float) -> str:
    """A quantile of the phase in which the server works, until the first byte of its answer, in seconds."""
    return quantile(share, rate(scope.select(PHASE_DURATION, 'phase="wait"', suffix="_bucket")), "server")
