"""From events to series: the one place that says which event counts where.

It knows no clock, no lock, no file and no exposition. Its speed is what a call costs the metrics sink, so that the
series of a combination of labels are looked up once and kept as a `_Route`.
"""

from typing import Final

from msgspec.structs import astuple

from gateway.calls import PHASES, REJECTIONS, UNKNOWN, Heartbeat, Operation, ToolCall
from gateway.config import Metrics
from gateway.mcp import tool_names
from gateway.observer import signals
from gateway.observer.failures import GATEWAYS_OWN
from gateway.observer.relay_metrics import Relays
from gateway.observer.series import ESTABLISHED, Histogram, Histograms, Labels, Value, Values
from gateway.observer.signals import Metric

MAX_ROUTES: Final = 50_000
"""Then all are forgotten: a route is only a short cut."""


class _Phases:
    """The histograms of one server's phases; None until the phase first took place."""

    __slots__ = ("histograms", "server", "spilled")

    def __init__(self, server: str) -> None:
        self.server = server
        self.histograms: list[Histogram | None] = [None] * len(PHASES)
        self.spilled = False


class _Route:
    """Where a call counts that has certain labels."""

    __slots__ = ("calls", "client", "duration", "last_used", "overhead", "phases", "server", "spilled")

    calls: Value
    duration: Histogram
    overhead: Histogram
    server: Histogram
    client: Histogram | None
    """None for a call that did not go upstream."""
    phases: _Phases
    last_used: Value
    spilled: tuple[Value, ...]
    """The overflow counters of the metrics in which the call has other labels than its own."""


class CallMetrics:
    """The series of all metrics that come from the journal; `now` is always seconds since the epoch."""

    def __init__(self, settings: Metrics) -> None:
        self.relays = Relays()
        self.values: dict[str, Values] = {}
        """The families of counters, and of gauges that only grow, by the metric's name."""
        self.histograms: dict[str, Histograms] = {}
        most = settings.max_series
        self._calls = self._values(signals.TOOL_CALLS, most)
        self._last_used = self._values(signals.TOKEN_LAST_USED, most)
        self._rejected = self._values(signals.REQUESTS_REJECTED, most)
        self._dropped = self._values(signals.RECORDS_DROPPED, most)
        self._overflow = self._values(signals.SERIES_OVERFLOW, most)
        self._values(signals.LEDGER_ROWS_DELETED, most)
        self._usage_unknown = self._values(signals.USAGE_UNKNOWN, most)
        self._duration = self._histograms(signals.TOOL_CALL_DURATION, settings.max_duration_label_sets, exemplars=True)
        phase, overhead = signals.PHASE_DURATION, signals.OVERHEAD
        self._phase = self._histograms(phase, _label_sets(phase, most), exemplars=True)
        self._overhead = self._histograms(overhead, _label_sets(overhead, most), exemplars=True)
        server, client = signals.SERVER_OPERATION_DURATION, signals.CLIENT_OPERATION_DURATION
        self._operations = {
            "server": self._histograms(server, _label_sets(server, most)),
            "client": self._histograms(client, _label_sets(client, most)),
        }
        self._routes: dict[tuple[object, ...], _Route] = {}
        self._phases: dict[str, _Phases] = {}

    @property
    def families(self) -> list[Values | Histograms]:
        """All of them."""
        return [*self.values.values(), *self.histograms.values()]

    def begin(self, now: float) -> None:
        """Make the series that are there before anything happens, so that none of them is born at 1."""
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
        route = self._routes.get(key) or self._make_route(key, call, now)
        route.calls.value += 1
        timestamp_ns = call.timestamp_ns
        route.last_used.value = max(route.last_used.value, timestamp_ns)
        bounds = self._duration.bounds_ms
        trace_id, ended_ns = call.trace_id, timestamp_ns + int(total_ms * 1e6)
        route.duration.observe_of(bounds, duration_ms, trace_id, ended_ns)
        route.server.observe(bounds, total_ms)
        if route.client is not None:
            route.client.observe(bounds, duration_ms)
        bounds = self._overhead.bounds_ms
        overhead_ms = total_ms - duration_ms if total_ms > duration_ms else 0.0
        route.overhead.observe_of(bounds, overhead_ms, trace_id, ended_ns)
        by_phase = route.phases
        for i, ms in enumerate(phases):
            if ms > 0:
                phase = by_phase.histograms[i] or self._make_phase(by_phase, i, now)
                phase.observe_of(bounds, ms, trace_id, ended_ns)
        if route.spilled or by_phase.spilled:
            self._count_spilled(route, phases)

    def operation(self, operation: Operation, now: float) -> None:
        """Count a request that is no tool call."""
        family = self._operations[operation.side]
        transport = signals.TRANSPORTS[operation.transport]
        labels = (operation.method, "", operation.error_type or "", transport)
        series = family.find(labels, now)
        series.observe(family.bounds_ms, operation.duration_ms)
        if series.labels != labels:
            self._spill(family.metric).value += 1
        if operation.token_id is not None:
            self._use(operation.workspace_id, operation.token_id, operation.timestamp_ns, now)

    def heartbeat(self, beat: Heartbeat, now: float) -> None:
        """Take a relay's state, and count what it rejected, decided and lost since its heartbeat before."""
        self.relays.take(beat)
        for reason, requests in beat.rejected.items():
            self._rejected.find((reason,), now).value += requests
        for workspace, decisions in beat.usage_unknown.items():
            for decision, calls in decisions.items():
                self._usage_unknown.find((workspace, decision), now).value += calls
        self.drop("journal", "disk", beat.dropped, now)

    def drop(self, sink: str, reason: str, records: int, now: float) -> None:
        """Count records that are lost to a sink; with 0, its series is there from now on."""
        self.add(signals.RECORDS_DROPPED, (sink, reason), records, now)

    def add(self, metric: Metric, labels: Labels, number: int, now: float) -> None:
        """Add to a counter; with 0, its series is there from now on."""
        self.values[metric.name].find(labels, now).value += number

    def _values(self, metric: Metric, max_label_sets: int) -> Values:
        self.values[metric.name] = family = Values(metric, max_label_sets)
        return family

    def _histograms(self, metric: Metric, max_label_sets: int, *, exemplars: bool = False) -> Histograms:
        self.histograms[metric.name] = family = Histograms(metric, max_label_sets, exemplars=exemplars)
        return family

    def _make_route(self, key: tuple[object, ...], call: ToolCall, now: float) -> _Route:
        workspace, token, server, tool = call.workspace_id, call.token_id, call.server_slug, call.tool_name
        error = "" if call.error_type is None else call.error_type.value
        route = _Route()
        spilled = []

        def value(family: Values, *labels: str) -> Value:
            series = family.find(labels, now)
            if series.labels != labels:
                spilled.append(self._spill(family.metric))
            return series

        def histogram(family: Histograms, *labels: str) -> Histogram:
            series = family.find(labels, now)
            if series.labels != labels:
                spilled.append(self._spill(family.metric))
            return series

        route.calls = value(self._calls, workspace, token, server, tool, call.status, error)
        route.last_used = value(self._last_used, workspace, token)
        route.duration = histogram(self._duration, workspace, token, server, tool)
        route.overhead = histogram(self._overhead, workspace)
        visible = tool if server == UNKNOWN else tool_names.join(server, tool)
        route.server = histogram(self._operations["server"], signals.TOOLS_CALL, visible, error, "tcp")
        route.client = None
        if key[-1]:
            error = "" if call.error_type in GATEWAYS_OWN else error
            transport = signals.TRANSPORTS[call.transport]
            route.client = histogram(self._operations["client"], signals.TOOLS_CALL, tool, error, transport)
        route.phases = self._phases.get(server) or self._phases.setdefault(server, _Phases(server))
        route.spilled = tuple(spilled)
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        self._routes[key] = route
        return route

    def _make_phase(self, phases: _Phases, i: int, now: float) -> Histogram:
        series = self._phase.find((PHASES[i], phases.server), now)
        phases.histograms[i] = series
        phases.spilled |= series.labels[1] != phases.server
        return series

    def _count_spilled(self, route: _Route, phases: tuple[float, ...]) -> None:
        """Each metric once, however many of its series the call counts in."""
        for overflow in route.spilled:
            overflow.value += 1
        server = route.phases.server
        if any(
            ms > 0 and h is not None and h.labels[1] != server
            for ms, h in zip(phases, route.phases.histograms, strict=True)
        ):
            self._spill(self._phase.metric).value += 1

    def _spill(self, metric: Metric) -> Value:
        return self._overflow.find((metric.name,), ESTABLISHED)

    def _use(self, workspace: str, token: str, timestamp_ns: int, now: float) -> None:
        labels = (workspace, token)
        series = self._last_used.find(labels, now)
        series.value = max(series.value, timestamp_ns)
        if series.labels != labels:
            self._spill(self._last_used.metric).value += 1


def _label_sets(metric: Metric, max_series: int) -> int:
    return max(max_series // metric.series_per_label_set, 1)
