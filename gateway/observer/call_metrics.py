"""From events to series: the one place that says which event counts in which metric.

It knows no clock, no lock and no file. Its speed is what a call costs the metrics sink, so that the series of each
combination of labels are looked up once and kept as `_CallSeries`.
"""

from typing import Final

from msgspec import Struct
from msgspec.structs import astuple

from gateway.calls import PHASES, REJECTIONS, Heartbeat, Operation, ToolCall
from gateway.config import Metrics
from gateway.observer import signals
from gateway.observer.attributes import GATEWAYS_OWN, visible_tool
from gateway.observer.exposition import Labels
from gateway.observer.series import (
    ESTABLISHED,
    HistogramFamily,
    HistogramSeries,
    S,
    SeriesFamily,
    ValueFamily,
    ValueSeries,
)
from gateway.observer.signals import Metric

MAX_CACHED: Final = 50_000
"""Combinations of labels; then all are forgotten, for a `_CallSeries` is only a short cut."""


class _CallSeries(Struct, kw_only=True, eq=False):
    """The series in which a call with certain labels counts."""

    calls: ValueSeries
    last_used: ValueSeries
    duration: HistogramSeries
    overhead: HistogramSeries
    server: HistogramSeries
    client: HistogramSeries | None
    """None for a call that did not go upstream."""
    overflow: list[ValueSeries]
    """The overflow counters of the metrics in which the call has other labels than its own."""
    phases: list[HistogramSeries | None]
    """None until the phase first took place."""
    phases_over_budget: bool = False
    """Whether some of them are counted under `__other__`."""


class CallMetrics:
    """The series of all metrics that come from the journal. `now` is always seconds since the epoch."""

    def __init__(self, settings: Metrics, *, max_cached: int = MAX_CACHED) -> None:
        self.values: dict[str, ValueFamily] = {}
        """The families of counters, and of gauges that only grow, by the metric's name."""
        self.histograms: dict[str, HistogramFamily] = {}
        self._max_series = settings.max_series
        self._calls = self._add_values(signals.TOOL_CALLS)
        self._last_used = self._add_values(signals.TOKEN_LAST_USED)
        self._rejected = self._add_values(signals.REQUESTS_REJECTED)
        self._dropped = self._add_values(signals.RECORDS_DROPPED)
        self._overflow = self._add_values(signals.SERIES_OVERFLOW)
        self._add_values(signals.LEDGER_ROWS_DELETED)
        self._usage_unknown = self._add_values(signals.USAGE_UNKNOWN)
        self._duration = self._add_histograms(
            signals.TOOL_CALL_DURATION, settings.max_duration_label_sets, exemplars=True
        )
        self._phase = self._add_histograms(signals.PHASE_DURATION, exemplars=True)
        self._overhead = self._add_histograms(signals.OVERHEAD, exemplars=True)
        self._operations = {
            "server": self._add_histograms(signals.SERVER_OPERATION_DURATION),
            "client": self._add_histograms(signals.CLIENT_OPERATION_DURATION),
        }
        self._max_cached = max_cached
        self._call_series: dict[tuple[object, ...], _CallSeries] = {}

    @property
    def families(self) -> list[ValueFamily | HistogramFamily]:
        return [*self.values.values(), *self.histograms.values()]

    def create_zeros(self, now: float) -> None:
        """Make the series that exist before anything happens, so that `increase()` sees their first step."""
        for family in self.families:
            if family.metric.collapse:
                self._overflow.find((family.metric.name,), now)
        self._dropped.find(("journal", "disk"), now)
        for reason in REJECTIONS:
            self._rejected.find((reason,), now)

    def call(self, call: ToolCall, now: float) -> None:
        """Count one call."""
        duration_ms, total_ms = call.duration_ms, call.total_ms
        phases = astuple(call.phases)
        _, _, acquire, send, wait, receive, _ = phases
        upstream = duration_ms > 0 or acquire > 0 or send > 0 or wait > 0 or receive > 0
        key = (
            call.workspace_id,
            call.token_id,
            call.server_slug,
            call.tool_name,
            call.status,
            call.error_type,
            call.transport,
            upstream,
        )
        series = self._call_series.get(key) or self._find_call_series(key, call, now)
        series.calls.value += 1
        timestamp_ns = call.timestamp_ns
        series.last_used.value = max(series.last_used.value, timestamp_ns)
        bounds = self._duration.bounds_ms
        trace_id, ended_ns = call.trace_id, timestamp_ns + int(total_ms * 1e6)
        series.duration.observe_traced(bounds, duration_ms, trace_id, ended_ns)
        series.server.observe(bounds, total_ms)
        if series.client is not None:
            series.client.observe(bounds, duration_ms)
        bounds = self._overhead.bounds_ms
        overhead_ms = total_ms - duration_ms if total_ms > duration_ms else 0.0
        series.overhead.observe_traced(bounds, overhead_ms, trace_id, ended_ns)
        histograms = series.phases
        for i, ms in enumerate(phases):
            if ms > 0:
                phase = histograms[i] or self._find_phase(series, i, call.server_slug, now)
                phase.observe_traced(bounds, ms, trace_id, ended_ns)
        if series.overflow or series.phases_over_budget:
            self._count_overflow(series, phases)

    def operation(self, operation: Operation, now: float) -> None:
        """Count a request that is not a tool call."""
        family = self._operations[operation.side]
        transport = signals.TRANSPORTS[operation.transport]
        labels = (operation.method, "", operation.error_type or "", transport)
        series = family.find(labels, now)
        series.observe(family.bounds_ms, operation.duration_ms)
        if series.labels != labels:
            self._overflow_of(family.metric).value += 1
        if operation.token_id is not None:
            token = (operation.workspace_id, operation.token_id)
            last_used = self._last_used.find(token, now)
            last_used.value = max(last_used.value, operation.timestamp_ns)
            if last_used.labels != token:
                self._overflow_of(self._last_used.metric).value += 1

    def heartbeat(self, heartbeat: Heartbeat, now: float) -> None:
        """Count what happened since the relay's heartbeat before."""
        for reason, requests in heartbeat.rejected.items():
            self._rejected.find((reason,), now).value += requests
        for workspace, decisions in heartbeat.usage_unknown.items():
            for decision, calls in decisions.items():
                self._usage_unknown.find((workspace, decision), now).value += calls
        self._dropped.find(("journal", "disk"), now).value += heartbeat.dropped

    def add(self, metric: Metric, labels: Labels, number: int, now: float) -> None:
        """Add to a counter. With 0, its series exists from now on."""
        self.values[metric.name].find(labels, now).value += number

    def _add_values(self, metric: Metric) -> ValueFamily:
        self.values[metric.name] = family = ValueFamily(metric, self._max_series)
        return family

    def _add_histograms(
        self, metric: Metric, max_label_sets: int | None = None, *, exemplars: bool = False
    ) -> HistogramFamily:
        most = max_label_sets or max(self._max_series // metric.series_per_label_set, 1)
        self.histograms[metric.name] = family = HistogramFamily(metric, most, exemplars=exemplars)
        return family

    def _find_call_series(self, key: tuple[object, ...], call: ToolCall, now: float) -> _CallSeries:
        workspace, token, server, tool = call.workspace_id, call.token_id, call.server_slug, call.tool_name
        error = "" if call.error_type is None else call.error_type.value
        overflow = []

        def find(family: SeriesFamily[S], *labels: str) -> S:
            found = family.find(labels, now)
            if found.labels != labels:
                overflow.append(self._overflow_of(family.metric))
            return found

        client = None
        if key[-1]:
            known = "" if call.error_type in GATEWAYS_OWN else error
            transport = signals.TRANSPORTS[call.transport]
            client = find(self._operations["client"], signals.TOOLS_CALL, tool, known, transport)
        series = _CallSeries(
            calls=find(self._calls, workspace, token, server, tool, call.status, error),
            last_used=find(self._last_used, workspace, token),
            duration=find(self._duration, workspace, token, server, tool),
            overhead=find(self._overhead, workspace),
            server=find(self._operations["server"], signals.TOOLS_CALL, visible_tool(call), error, "tcp"),
            client=client,
            overflow=overflow,
            phases=[None] * len(PHASES),
        )
        if len(self._call_series) >= self._max_cached:
            self._call_series.clear()
        self._call_series[key] = series
        return series

    def _find_phase(self, series: _CallSeries, i: int, server: str, now: float) -> HistogramSeries:
        labels = (PHASES[i], server)
        series.phases[i] = phase = self._phase.find(labels, now)
        series.phases_over_budget |= phase.labels != labels
        return phase

    def _count_overflow(self, series: _CallSeries, phases: tuple[float, ...]) -> None:
        """Count each metric once, in however many of its series the call counts."""
        for overflow in series.overflow:
            overflow.value += 1
        if series.phases_over_budget and any(
            ms > 0 and histogram is not None and histogram.labels[1] == signals.OTHER
            for ms, histogram in zip(phases, series.phases, strict=True)
        ):
            self._overflow_of(self._phase.metric).value += 1

    def _overflow_of(self, metric: Metric) -> ValueSeries:
        return self._overflow.find((metric.name,), ESTABLISHED)
