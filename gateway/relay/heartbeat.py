"""What the relay writes to the journal beside the records of tool calls: operations, and a heartbeat every second."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from gateway.calls import Decision, Heartbeat, Operation, Rejection, UpstreamState
from gateway.journal import Writer
from gateway.relay.registry import Server

logger = logging.getLogger(__name__)

_INTERVAL_S: Final = 1.0
_LAG_PROBE_S: Final = 0.1
_NAMES_EVERY: Final = 10
"""One of so many heartbeats carries the tools' names."""


class HeartbeatWriter:
    """Collects what the next heartbeat says, and writes it."""

    def __init__(self, journal: Writer, replica: str, *, fsync_interval: float = 1.0) -> None:
        self.journal = journal
        self.replica = replica
        self._fsync_interval = fsync_interval
        self._rejected: Counter[str] = Counter()
        self._unknown_usage: dict[str, Counter[str]] = {}
        self._lag_ms = 0.0
        self._written = 0

    def count_rejection(self, reason: Rejection) -> None:
        """A request was rejected before it was a call."""
        self._rejected[reason] += 1

    def count_unknown_usage(self, workspace_id: str, decision: Decision) -> None:
        """A call was allowed or refused without knowing what its workspace has used of its plan."""
        self._unknown_usage.setdefault(workspace_id, Counter())[decision] += 1

    def record(self, operation: Operation) -> None:
        """Record a request that is not a tool call."""
        self.journal.append(operation)

    async def run(self, servers: Callable[[], Iterable[Server]]) -> None:
        """Write a heartbeat every second and sync the journal, until cancelled. `servers` gives the present ones."""
        synced = time.monotonic()
        try:
            while True:
                await self._measure_lag(_INTERVAL_S)
                self._write(servers())
                self.journal.rotate_if_old()
                if time.monotonic() - synced >= self._fsync_interval:
                    synced = time.monotonic()
                    await asyncio.to_thread(self._sync)
        finally:
            self._write(servers())

    def _sync(self) -> None:
        try:
            self.journal.sync()
        except OSError as error:
            logger.error("the journal cannot be synced to disk: %s", error)  # noqa: TRY400 - a traceback adds nothing

    async def _measure_lag(self, seconds: float) -> None:
        """Sleep in short steps. What a step takes longer than it should is the event loop's lag."""
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            await asyncio.sleep(_LAG_PROBE_S)
            self._lag_ms = max(self._lag_ms, (time.perf_counter() - now - _LAG_PROBE_S) * 1e3)

    def _write(self, servers: Iterable[Server]) -> None:
        with_names = self._written % _NAMES_EVERY == 0
        self._written += 1
        self.journal.append(
            Heartbeat(
                timestamp_ns=time.time_ns(),
                replica=self.replica,
                pid=os.getpid(),
                upstreams=[_state(server, with_names=with_names) for server in servers],
                rejected=dict(self._rejected),
                usage_unknown={workspace_id: dict(counts) for workspace_id, counts in self._unknown_usage.items()},
                dropped=self.journal.take_dropped(),
                event_loop_lag_ms=self._lag_ms,
            )
        )
        self._rejected.clear()
        self._unknown_usage.clear()
        self._lag_ms = 0.0


def _state(server: Server, *, with_names: bool) -> UpstreamState:
    catalog = server.catalog
    return UpstreamState(
        workspace_id=server.workspace_id,
        server_slug=server.slug,
        up=server.up,
        last_success_ns=server.last_success_ns,
        in_flight=server.in_flight,
        tools=len(catalog.tools),
        tools_list_bytes=catalog.bytes,
        tool_names=list(catalog.tools) if with_names and catalog.known else None,
    )
