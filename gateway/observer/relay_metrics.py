"""Gauges from the relays' heartbeats: the state of each living relay and of its upstreams.

Nothing is saved: a living relay repeats its state within a second, and a silent one does not count.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from prometheus_client import Metric as MetricFamily

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


class RelayStates:
    """What the living relays know. Times are nanoseconds since the epoch."""

    def __init__(self) -> None:
        self._relays: dict[tuple[str, int], _RelayState] = {}

    def update(self, heartbeat: Heartbeat) -> None:
        """Take a heartbeat. One that is older than the relay's newest changes nothing."""
        key = (heartbeat.replica, heartbeat.pid)
        relay = self._relays.get(key)
        if relay is None:
            self._forget_silent(heartbeat.timestamp_ns)
            self._relays[key] = _RelayState(heartbeat)
        elif heartbeat.timestamp_ns >= relay.heartbeat.timestamp_ns:
            relay.update(heartbeat)

    def collect(self, now_ns: int) -> Iterator[MetricFamily]:
        """The gauges. What no relay knows has no series."""
        self._forget_silent(now_ns)
        in_flight: Counter[_Upstream] = Counter()
        last_success: dict[_Upstream, int] = {}
        tools: dict[_Upstream, int] = {}
        list_bytes: dict[_Upstream, int] = {}
        for relay in self._relays.values():
            for state in relay.heartbeat.upstreams:
                upstream = (state.workspace_id, state.server_slug)
                in_flight[upstream] += state.in_flight
                last_success[upstream] = max(last_success.get(upstream, 0), state.last_success_ns)
                # Relays have the same catalog, or none as long as no client has asked them for the tools.
                tools[upstream] = max(tools.get(upstream, 0), state.tools)
                list_bytes[upstream] = max(list_bytes.get(upstream, 0), state.tools_list_bytes)
        yield metric_family(signals.IN_FLIGHT_CALLS, in_flight.items())
        yield metric_family(signals.UPSTREAM_UP, self.upstreams_up(now_ns).items())
        yield metric_family(
            signals.UPSTREAM_LAST_SUCCESS, [(upstream, ns / 1e9) for upstream, ns in last_success.items() if ns]
        )
        yield metric_family(signals.TOOLS, tools.items())
        yield metric_family(signals.TOOLS_LIST_BYTES, list_bytes.items())

    def worst_lag_s(self, now_ns: int) -> float | None:
        """The worst lag of any relay's event loop in the last seconds; None if no relay lives."""
        self._forget_silent(now_ns)
        return max((relay.lag.seconds for relay in self._relays.values()), default=None)

    def upstreams_up(self, now_ns: int) -> dict[_Upstream, bool]:
        """Whether each upstream is up, by the newest status that any relay has of it."""
        self._forget_silent(now_ns)
        newest: dict[_Upstream, _UpstreamStatus] = {}
        for relay in self._relays.values():
            for upstream, status in relay.status.items():
                if upstream not in newest or status.since_ns > newest[upstream].since_ns:
                    newest[upstream] = status
        return {upstream: status.up for upstream, status in newest.items()}

    def tools(self, workspace_id: str, now_ns: int) -> set[tuple[str, str]]:
        """Server and tool of everything in a workspace's catalogs."""
        self._forget_silent(now_ns)
        return {
            (server, tool)
            for relay in self._relays.values()
            for (workspace, server), tools in relay.tool_names.items()
            if workspace == workspace_id
            for tool in tools
        }

    def _forget_silent(self, now_ns: int) -> None:
        oldest_ns = now_ns - SILENCE_S * 1e9
        self._relays = {key: relay for key, relay in self._relays.items() if relay.heartbeat.timestamp_ns >= oldest_ns}
