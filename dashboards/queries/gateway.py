"""Is the gateway itself healthy: is telemetry late or lost, what does the gateway add to a call, what does it cost."""

from typing import Final

from dashboards.promql import RANGE, Scope, aggregate, highest, increase, or_zero, quantile, rate, total
from dashboards.queries import calls
from gateway.observer.signals import (
    BUILD_INFO,
    CLIENT_OPERATION_DURATION,
    CONFIG_RELOADS,
    CONFIG_VALID,
    EVENT_LOOP_LAG,
    LEDGER_ROWS_DELETED,
    OVERHEAD,
    PHASE_DURATION,
    RECORDS_DROPPED,
    REQUESTS_REJECTED,
    SERIES_OVERFLOW,
    SERVER_OPERATION_DURATION,
    SINK_LAG_BYTES,
    SINK_LAG_SECONDS,
    TOOL_CALLS,
    USAGE_UNKNOWN,
    Metric,
)

FIRING: Final = 'ALERTS{alertname=~"Callscope.+", alertstate="firing"}'
"""The alerts of Callscope's rules that fire."""


def replicas(scope: Scope) -> str:
    """How many observers are scraped."""
    return or_zero(f"count({scope.select(BUILD_INFO)})")


def scraped(scope: Scope) -> str:
    """1 while an observer answers Prometheus."""
    return aggregate("min", ("instance",), scope.of_target("up"))


def versions(scope: Scope) -> str:
    """How many observers run which version."""
    return aggregate("count", ("version",), scope.select(BUILD_INFO))


def worst_lag(scope: Scope) -> str:
    """Seconds that the slowest sink is behind the journal."""
    return highest(scope.select(SINK_LAG_SECONDS))


def lag(scope: Scope) -> str:
    """Seconds that a sink is behind the journal."""
    return highest(scope.select(SINK_LAG_SECONDS), "instance", "sink")


def lag_bytes(scope: Scope) -> str:
    """What a sink has not read of the journal."""
    return highest(scope.select(SINK_LAG_BYTES), "instance", "sink")


def lost(scope: Scope) -> str:
    """Records that were lost to any sink."""
    return or_zero(total(increase(scope.select(RECORDS_DROPPED))))


def lost_over_time(scope: Scope) -> str:
    """Records that were lost, by sink and reason."""
    return total(increase(scope.select(RECORDS_DROPPED), "$__rate_interval"), "sink", "reason")


def overflow(scope: Scope) -> str:
    """Records that were counted under `__other__`, by metric, over time."""
    return total(increase(scope.select(SERIES_OVERFLOW), "$__rate_interval"), "metric")


def usage_unknown(scope: Scope) -> str:
    """Calls a minute of which it was not known whether the plan still allows them, by what was decided."""
    return f"60 * {total(rate(scope.select(USAGE_UNKNOWN)), 'workspace', 'decision')}"


def rows_deleted(scope: Scope) -> str:
    """Calls that the ledger deleted, as its plan says, over time."""
    return total(increase(scope.select(LEDGER_ROWS_DELETED), "$__rate_interval"), "workspace")


def worst_loop_lag(scope: Scope) -> str:
    """Seconds that the slowest event loop was late."""
    return highest(scope.select(EVENT_LOOP_LAG))


def loop_lag(scope: Scope) -> str:
    """Seconds that event loops were late, by kind of process."""
    return highest(scope.select(EVENT_LOOP_LAG), "instance", "process")


def overhead(scope: Scope, share: float) -> str:
    """A quantile of what the gateway adds to a call, in seconds."""
    return calls.duration(scope, share, metric=OVERHEAD)


def overhead_over_time(scope: Scope, share: float) -> str:
    """The same, over time."""
    return calls.duration_over_time(scope, share, metric=OVERHEAD)


def phases(scope: Scope, share: float) -> str:
    """A quantile of each phase of a call, in seconds, over time."""
    return calls.duration_over_time(scope, share, "phase", metric=PHASE_DURATION)


def faults(scope: Scope) -> str:
    """Calls that failed by the gateway's own fault."""
    return or_zero(total(increase(scope.select(TOOL_CALLS, 'error_type="gateway_error"'))))


def rejected(scope: Scope) -> str:
    """Requests a minute that were turned away, by reason."""
    return f"60 * {total(rate(scope.select(REQUESTS_REJECTED)), 'reason')}"


def operations(scope: Scope, metric: Metric = SERVER_OPERATION_DURATION) -> str:
    """MCP requests a minute, by method."""
    return f"60 * {total(rate(scope.select(metric, suffix='_count')), 'mcp_method_name')}"


def operations_duration(scope: Scope, share: float, metric: Metric = SERVER_OPERATION_DURATION) -> str:
    """A quantile of how long MCP requests took, by method, in seconds."""
    return quantile(share, rate(scope.select(metric, suffix="_bucket")), "mcp_method_name")


def upstream_failures(scope: Scope) -> str:
    """MCP requests to upstreams a minute that failed, by method and error type."""
    failed = scope.select(CLIENT_OPERATION_DURATION, 'error_type!=""', suffix="_count")
    return f"60 * {total(rate(failed), 'mcp_method_name', 'error_type')}"


def configured(scope: Scope) -> str:
    """1 while the configuration file is the one that holds, 0 while it is refused."""
    return aggregate("min", ("instance",), scope.select(CONFIG_VALID))


def reloads(scope: Scope) -> str:
    """Configuration reloads, by outcome."""
    return total(increase(scope.select(CONFIG_RELOADS), RANGE), "status")


def cpu(scope: Scope) -> str:
    """Cores that an observer uses."""
    return highest(scope.own(rate(scope.of_target("process_cpu_seconds_total"))), "instance")


def memory(scope: Scope) -> str:
    """Bytes of memory that an observer holds."""
    return highest(scope.own(scope.of_target("process_resident_memory_bytes")), "instance")


def open_files(scope: Scope) -> str:
    """The share of the file descriptors that an observer may open and has."""
    most = highest(scope.own(scope.of_target("process_max_fds")), "instance")
    return f"{highest(scope.own(scope.of_target('process_open_fds')), 'instance')} / {most}"


def uptime(scope: Scope) -> str:
    """Seconds since the youngest observer started."""
    return f"time() - {highest(scope.own(scope.of_target('process_start_time_seconds')))}"


def scrape_duration(scope: Scope) -> str:
    """Seconds that a scrape takes."""
    return highest(scope.of_target("scrape_duration_seconds"), "instance")


def scrape_samples(scope: Scope) -> str:
    """Samples of a scrape: what the gateway costs Prometheus."""
    return highest(scope.of_target("scrape_samples_post_metric_relabeling"), "instance")
