"""Gauges from the relays' heartbeats: the state of each living relay and of its upstreams.

Nothing is saved: a living relay repeats its state within a second, and a silent one does not count.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client import Metric as MetricFamily
from prometheus_client.registry import Collector

from gateway.calls import Heartbeat
from gateway.observer import signals
from gateway.observer.exposition import metric_family
from gateway.observer.self_metrics import WorstLag

SILENCE_S: Final = 5.0
"""A relay without a heartbeat for so long is gone."""

_Upstream = tuple[str, str]
"""Workspace and server."""


class _UpstreamStatus(NamedTuple):
    """Whether an upstream is up, as far as one relay knows, and since when it knows."""

    up: bool
    since_ns: int


class _RelayState:
    """The newest heartbeat of one relay process, and what is known from the earlier ones."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.status: dict[_Upstream, _UpstreamStatus] = {}
        self.lag = WorstLag()
        self.tool_names: dict[_Upstream, list[str]] = {}
        self.update(heartbeat)

    def update(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        old_status, self.status = self.status, {}
        old_names, self.tool_names = self.tool_names, {}
        for state in heartbeat.upstreams:
            upstream = (state.workspace_id, state.server_slug)
            # Only one heartbeat in ten names the tools.
            names = state.tool_names if state.tool_names is not None else old_names.get(upstream)
            if names is not None:
                self.tool_names[upstream] = names
            if state.up is None:
                continue
            old = old_status.get(upstream)
            if state.up:
                self.status[upstream] = _UpstreamStatus(up=True, since_ns=state.last_success_ns)
            elif old is not None and not old.up and state.last_success_ns <= old.since_ns:
                self.status[upstream] = old  # the same failure: repeating it makes it no newer
            else:
                self.status[upstream] = _UpstreamStatus(up=False, since_ns=heartbeat.timestamp_ns)
        self.lag.add(heartbeat.event_loop_lag_ms / 1e3, at_s=heartbeat.timestamp_ns / 1e9)


class RelayMetrics(Collector):
    """What the living relays know. `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._relays: dict[tuple[str, int], _RelayState] = {}

    def update(self, heartbeat: Heartbeat) -> None:
        """Take a heartbeat. One that is older than the relay's newest changes nothing."""
        key = (heartbeat.replica, heartbeat.pid)
        with self._lock:
            relay = self._relays.get(key)
            if relay is None:
                self._forget_silent(heartbeat.timestamp_ns / 1e9)
                self._relays[key] = _RelayState(heartbeat)
            elif heartbeat.timestamp_ns >= relay.heartbeat.timestamp_ns:
                relay.update(heartbeat)

    def collect(self) -> Iterator[MetricFamily]:
        """The gauges. What no relay knows has no series."""
        in_flight: Counter[_Upstream] = Counter()
        last_success: Counter[_Upstream] = Counter()
        tools: Counter[_Upstream] = Counter()
        list_bytes: Counter[_Upstream] = Counter()
        with self._lock:
            for relay in self._living():
                for state in relay.heartbeat.upstreams:
                    upstream = (state.workspace_id, state.server_slug)
                    in_flight[upstream] += state.in_flight
                    last_success[upstream] = max(last_success[upstream], state.last_success_ns)
                    # Relays have the same catalog, or none as long as no client has asked them for the tools.
                    tools[upstream] = max(tools[upstream], state.tools)
                    list_bytes[upstream] = max(list_bytes[upstream], state.tools_list_bytes)
            up = self._upstreams_up()
        yield metric_family(signals.IN_FLIGHT_CALLS, in_flight.items())
        yield metric_family(signals.UPSTREAM_UP, up.items())
        yield metric_family(
            signals.UPSTREAM_LAST_SUCCESS, [(upstream, ns / 1e9) for upstream, ns in last_success.items() if ns]
        )
        yield metric_family(signals.TOOLS, tools.items())
        yield metric_family(signals.TOOLS_LIST_BYTES, list_bytes.items())

    def worst_lag_s(self) -> float | None:
        """The worst lag of any relay's event loop in the last seconds; None if no relay lives."""
        with self._lock:
            return max((relay.lag.seconds for relay in self._living()), default=None)

    def upstream_up(self, workspace_id: str, server_slug: str) -> bool | None:
        """Whether a server responded to the last request; None if no living relay knows."""
        with self._lock:
            return self._upstreams_up().get((workspace_id, server_slug))

    def catalog(self, workspace_id: str) -> set[tuple[str, str]]:
        """Server and tool of everything that a workspace offers, as far as the relays have seen it."""
        with self._lock:
            return {
                (server, tool)
                for relay in self._living()
                for (workspace, server), tools in relay.tool_names.items()
                if workspace == workspace_id
                for tool in tools
            }

    def _upstreams_up(self) -> dict[_Upstream, bool]:
        """By the newest status that any relay has of each upstream."""
        newest: dict[_Upstream, _UpstreamStatus] = {}
        for relay in self._living():
            for upstream, status in relay.status.items():
                if upstream not in newest or status.since_ns > newest[upstream].since_ns:
                    newest[upstream] = status
        return {upstream: status.up for upstream, status in newest.items()}

    def _living(self) -> Iterable[_RelayState]:
        self._forget_silent(self._clock())
        return self._relays.values()

    def _forget_silent(self, now: float) -> None:
        oldest_ns = (now - SILENCE_S) * 1e9
        self._relays = {key: relay for key, relay in self._relays.items() if relay.heartbeat.timestamp_ns >= oldest_ns}
