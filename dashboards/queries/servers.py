"""Are the upstream servers there, how much is asked of them, and what their catalogues cost."""

from dashboards.promql import Scope, aggregate, highest, increase, or_zero, quantile, rate, total
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


def catalogue_bytes(scope: Scope, *by: str) -> str:
    """What all of the tools' descriptions take in `tools/list`."""
    return total(highest(scope.select(TOOLS_LIST_BYTES), *SERVER), *by)


def tools_never_called(scope: Scope) -> str:
    """How many of each server's tools nobody called; never less than none, though a tool that is gone was called."""
    known = increase(scope.select(TOOL_CALLS, 'tool!="_unknown"'))
    called = aggregate("count", SERVER, f"{total(known, *calls.TOOL)} > 0")
    offered = tools(scope, *SERVER)
    return f"clamp_min({offered} - ({called} or 0 * {offered}), 0)"


def waiting(scope: Scope, share: float) -> str:
    """A quantile of the phase in which the server works, until the first byte of its answer, in seconds."""
    return quantile(share, rate(scope.select(PHASE_DURATION, 'phase="wait"', suffix="_bucket")), "server")
