"""What the relay writes into the journal, beside the records of tool calls, and when: operations and the heartbeat."""

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

HEARTBEAT_S: Final = 1.0
LAG_PROBE_S: Final = 0.1
NAMES_EVERY: Final = 10
"""Of so many heartbeats, one carries the tools' names."""


class HeartbeatWriter:
    """The journal's writer, and the state that travels with the heartbeat."""

    def __init__(self, journal: Writer, replica: str, *, fsync_interval: float = 1.0) -> None:
        self.journal = journal
        self.replica = replica
        self._rejected: Counter[str] = Counter()
        self._unsure: dict[str, dict[str, int]] = {}
        self._fsync_interval = fsync_interval
        self._lag_ms = 0.0
        self._beats = 0

    def reject(self, reason: Rejection) -> None:
        """Count a request that was turned away before it was a call."""
        self._rejected[reason] += 1

    def unsure(self, workspace_id: str, decision: Decision) -> None:
        """Count what was decided of a call without knowing what its workspace has used."""
        decisions = self._unsure.setdefault(workspace_id, {})
        decisions[decision] = decisions.get(decision, 0) + 1

    def operation(self, operation: Operation) -> None:
        """Record a request that is no tool call."""
        self.journal.append(operation)

    async def beat(self, servers: Callable[[], Iterable[Server]]) -> None:
        """Write a heartbeat once a second, until cancelled."""
        synced = time.monotonic()
        try:
            while True:
                await self._measure_lag(HEARTBEAT_S)
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
            logger.error("the journal cannot be brought to the disk: %s", error)  # noqa: TRY400 - the disk's reason is all

    async def _measure_lag(self, seconds: float) -> None:
        """Sleep in short steps; what a step takes longer is the event loop's lag."""
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            await asyncio.sleep(LAG_PROBE_S)
            self._lag_ms = max(self._lag_ms, (time.perf_counter() - now - LAG_PROBE_S) * 1e3)

    def _write(self, servers: Iterable[Server]) -> None:
        with_names = self._beats % NAMES_EVERY == 0
        self._beats += 1
        states = [
            UpstreamState(
                workspace_id=server.workspace_id,
                server_slug=server.slug,
                up=server.up,
                last_success_ns=server.last_success_ns,
                in_flight=server.in_flight,
                tools=len(server.catalog.tools),
                tools_list_bytes=server.catalog.bytes,
                tool_names=list(server.catalog.tools) if with_names and server.catalog.known else None,
            )
            for server in servers
        ]
        rejected, self._rejected = dict(self._rejected), Counter()
        unsure, self._unsure = self._unsure, {}
        lag, self._lag_ms = self._lag_ms, 0.0
        self.journal.append(
            Heartbeat(
                timestamp_ns=time.time_ns(),
                replica=self.replica,
                pid=os.getpid(),
                upstreams=states,
                rejected=rejected,
                usage_unknown=unsure,
                dropped=self.journal.take_dropped(),
                event_loop_lag_ms=lag,
            )
        )
