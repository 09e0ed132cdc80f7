"""What the observer does besides its sinks: it keeps the journal's folder in order and deletes old calls."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.journal import Janitor
from gateway.journal.reader import Positions
from gateway.ledger import Ledger
from gateway.ledger.retention import BATCH, delete_batch, delete_usage_before
from gateway.months import DAY_NS, month_of
from gateway.observer.exposition import Labels
from gateway.observer.sinks import SinkWorker
from gateway.process import wait_at_most

logger = logging.getLogger(__name__)

COLLECT_EVERY: Final = 10
"""Of so many rounds, one deletes what every sink has read."""
RECLAIM_EVERY: Final = 20
"""Of so many deleted batches, one is followed by reclaiming their space: that of more would hold up others."""


class JournalMaintenance:
    """Closes dead writers, deletes what has been read, and stops the observer when a sink has died."""

    def __init__(self, janitor: Janitor, workers: Sequence[SinkWorker]) -> None:
        self.dropped: Counter[str] = Counter()
        """Calls that a sink lost because the journal grew over `max_bytes`, by sink."""
        self._janitor = janitor
        self._workers = workers

    async def run(self, stop: asyncio.Event, *, interval: float = 1.0) -> None:
        """A round each `interval` seconds, until `stop` is set, here or elsewhere.

        A dead thread is not started again here: the process stops, and the supervisor starts a whole one.
        """
        rounds = 0
        while not stop.is_set():
            rounds += 1  # the first round deletes nothing: after a long pause, sinks must get to read before
            await asyncio.to_thread(self._round, collect=rounds % COLLECT_EVERY == 0)
            for worker in self._workers:
                if not worker.is_alive() and not stop.is_set():
                    logger.error("the thread of the %s sink has ended: the observer restarts", worker.sink.name)
                    stop.set()
            await wait_at_most(stop, interval)

    def _round(self, *, collect: bool) -> None:
        _guard(self._recover)
        if collect:
            _guard(self._collect)  # also when a full disk lets no writer be closed: this makes room

    def _recover(self) -> None:
        closed = self._janitor.recover()
        if closed:
            logger.warning("a relay died: %d calls that it left open are closed as gateway_error", closed)

    def _collect(self) -> None:
        positions: dict[str, Positions] = {worker.sink.name: dict(worker.committed) for worker in self._workers}
        for sink, calls in self._janitor.collect(positions).items():
            self.dropped[sink] += calls
            logger.error("the journal is over journal.max_bytes: %d calls are lost to the %s sink", calls, sink)


def _guard(act: Callable[[], None]) -> None:
    """The outermost handler of a task that must go on: the next round tries again."""
    try:
        act()
    except OSError as error:
        logger.error("the journal cannot be kept in order: %s", error)  # noqa: TRY400 - the disk's reason is all
    except Exception:
        logger.exception("the journal cannot be kept in order")


class RetentionTask:
    """Deletes calls that are older than their workspace's plan keeps them, by the last configuration it was given.

    Calls of a workspace that the configuration no longer has stay: no plan says how long to keep them.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        interval: float = 60.0,
        batch: int = BATCH,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ledger = ledger
        self._interval = interval
        self._batch = batch
        self._clock = clock
        self._days: Mapping[str, int | None] = {}
        self._deleted: Counter[str] = Counter()
        self._reclaimable = False
        """Whether rows were deleted whose space has not been reclaimed."""
        self._changed = asyncio.Event()
        self._stopping = threading.Event()

    def configure(self, config: Config) -> None:
        """Delete by this configuration's plans from now on, in the middle of a round too."""
        self._days = {
            workspace_id: config.plan_of(workspace).retention_days
            for workspace_id, workspace in config.workspaces.items()
        }
        self._changed.set()

    def deleted(self) -> Mapping[Labels, int]:
        """Rows deleted since this process began, by workspace; 0 for a configured one without any."""
        return {(workspace_id,): self._deleted[workspace_id] for workspace_id in {*self._days, *self._deleted}}

    async def run(self) -> None:
        """A round now, each `interval` seconds, and after each change, until cancelled; a batch is not left behind."""
        while True:
            self._changed.clear()
            round_in_thread = asyncio.create_task(asyncio.to_thread(self.round))
            try:
                await asyncio.shield(round_in_thread)
            except asyncio.CancelledError:
                self._stopping.set()
                await round_in_thread
                raise
            await wait_at_most(self._changed, self._interval)

    def round(self) -> None:
        """Delete all that is too old now. A failure is logged; the next round tries again."""
        batches = 0
        try:
            delete_usage_before(self._ledger, month_of(month_of(self._clock()).start_ns - 1).start_ns)
            for workspace_id in self._days:
                while self._delete_batch(workspace_id):
                    batches += 1
                    if batches % RECLAIM_EVERY == 0:
                        self._reclaim()
            self._reclaim()
        except LedgerUnavailableError as error:
            logger.warning("old calls are deleted later: %s", error)
        except Exception:
            logger.exception("old calls could not be deleted; the next round tries again")

    def _reclaim(self) -> None:
        if self._reclaimable and not self._stopping.is_set():
            self._reclaimable = not self._ledger.reclaim(self._clock())

    def _delete_batch(self, workspace_id: str) -> bool:
        """Whether there was anything to delete."""
        days = self._days.get(workspace_id)  # read for each batch: a plan that keeps more holds at once
        if days is None or self._stopping.is_set():
            return False
        began = time.monotonic()
        deleted = delete_batch(self._ledger, workspace_id, self._clock() - days * DAY_NS, most=self._batch)
        self._deleted[workspace_id] += deleted
        if deleted:
            self._reclaimable = True
            self._stopping.wait(time.monotonic() - began)  # half of the ledger's time is for others
        return deleted > 0
