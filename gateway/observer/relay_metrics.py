"""What the living relays last said of themselves and their upstreams: gauges, from their heartbeats.

Nothing of it is saved: a relay that lives says it again within a second, and one that is silent does not count.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.calls import Heartbeat
from gateway.observer import signals
from gateway.observer.loop_lag import WorstLag
from gateway.observer.samples import Family, Reading

SILENCE_S: Final = 5.0
"""A relay that has said nothing for so long is gone."""

_Upstream = tuple[str, str]
"""Workspace and server."""


class _Knowledge(NamedTuple):
    """Whether an upstream is up, as far as one relay knows, and since when it knows."""

    up: bool
    since_ns: int


class _Relay:
    """One relay process."""

    def __init__(self) -> None:
        self.beat: Heartbeat | None = None
        self.knowledge: dict[_Upstream, _Knowledge] = {}
        self.lag = WorstLag()
        self.names: dict[_Upstream, list[str]] = {}

    def take(self, beat: Heartbeat) -> None:
        known, self.knowledge = self.knowledge, {}
        names, self.names = self.names, {}
        for state in beat.upstreams:
            upstream = (state.workspace_id, state.server_slug)
            said = state.tool_names if state.tool_names is not None else names.get(upstream)
            if said is not None:
                self.names[upstream] = said
            if state.up is None:
                continue
            before = known.get(upstream)
            if state.up:
                self.knowledge[upstream] = _Knowledge(up=True, since_ns=state.last_success_ns)
            elif before is not None and not before.up and state.last_success_ns <= before.since_ns:
                self.knowledge[upstream] = before
            else:
                self.knowledge[upstream] = _Knowledge(up=False, since_ns=beat.timestamp_ns)
        self.lag.add(beat.event_loop_lag_ms / 1e3, at_s=beat.timestamp_ns / 1e9)
        self.beat = beat


class Relays:
    """The newest heartbeat of each relay process."""

    def __init__(self) -> None:
        self._relays: dict[tuple[str, int], _Relay] = {}

    def take(self, beat: Heartbeat) -> None:
        """Take a heartbeat; one that is older than what is known of its relay says nothing new."""
        relay = self._relays.get((beat.replica, beat.pid))
        if relay is None:
            self._forget_silent(beat.timestamp_ns)
            relay = self._relays[beat.replica, beat.pid] = _Relay()
        if relay.beat is None or beat.timestamp_ns >= relay.beat.timestamp_ns:
            relay.take(beat)

    def read(self, now_ns: int) -> Iterator[Family]:
        """The gauges at `now_ns`; what no relay knows has no series."""
        self._forget_silent(now_ns)
        in_flight: dict[_Upstream, int] = {}
        succeeded: dict[_Upstream, int] = {}
        tools: dict[_Upstream, int] = {}
        sizes: dict[_Upstream, int] = {}
        for relay in self._relays.values():
            for state in relay.beat.upstreams if relay.beat is not None else ():
                upstream = (state.workspace_id, state.server_slug)
                in_flight[upstream] = in_flight.get(upstream, 0) + state.in_flight
                succeeded[upstream] = max(succeeded.get(upstream, 0), state.last_success_ns)
                # A relay that nobody has asked for the tools yet knows none, and a catalog is the same for all.
                tools[upstream] = max(tools.get(upstream, 0), state.tools)
                sizes[upstream] = max(sizes.get(upstream, 0), state.tools_list_bytes)
        yield _family(signals.IN_FLIGHT_CALLS, in_flight)
        yield _family(signals.UPSTREAM_UP, {upstream: int(up) for upstream, up in self.up(now_ns).items()})
        yield _family(signals.UPSTREAM_LAST_SUCCESS, {key: ns / 1e9 for key, ns in succeeded.items() if ns})
        yield _family(signals.TOOLS, tools)
        yield _family(signals.TOOLS_LIST_BYTES, sizes)

    def lag_s(self, now_ns: int) -> float | None:
        """The worst lag of any relay's event loop in the last seconds; None if no relay lives."""
        self._forget_silent(now_ns)
        return max((relay.lag.seconds for relay in self._relays.values()), default=None)

    def up(self, now_ns: int) -> dict[_Upstream, bool]:
        """Whether each upstream is up at `now_ns`, by the newest knowledge of any relay."""
        self._forget_silent(now_ns)
        newest: dict[_Upstream, _Knowledge] = {}
        for relay in self._relays.values():
            for upstream, knowledge in relay.knowledge.items():
                if upstream not in newest or knowledge.since_ns > newest[upstream].since_ns:
                    newest[upstream] = knowledge
        return {upstream: knowledge.up for upstream, knowledge in newest.items()}

    def tools(self, workspace_id: str, now_ns: int) -> set[tuple[str, str]]:
        """Server and tool of everything in the catalogs of a workspace at `now_ns`."""
        self._forget_silent(now_ns)
        return {
            (server, tool)
            for relay in self._relays.values()
            for (workspace, server), tools in relay.names.items()
            if workspace == workspace_id
            for tool in tools
        }

    def _forget_silent(self, now_ns: int) -> None:
        since_ns = now_ns - SILENCE_S * 1e9
        self._relays = {
            key: relay
            for key, relay in self._relays.items()
            if relay.beat is not None and relay.beat.timestamp_ns >= since_ns
        }


def _family(metric: signals.Metric, values: dict[_Upstream, int] | dict[_Upstream, float]) -> Family:
    return Family(metric, [Reading(upstream, value) for upstream, value in values.items()])
