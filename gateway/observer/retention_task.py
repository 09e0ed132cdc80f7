"""Retention while the observer runs: each minute, and at once when a plan changes, what is too old is deleted.

Calls of a workspace that the configuration has no more stay: without a workspace there is no plan to say otherwise.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger
from gateway.ledger.retention import BATCH, delete_batch, delete_usage_before
from gateway.months import DAY_NS, month_of
from gateway.observer.series import Labels

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 60.0
RECLAIM_EVERY: Final = 20
"""Of so many batches, one is followed by reclaiming their room: of more it would take so long that others notice."""


class RetentionTask:
    """Deletes for the workspaces and plans of the last configuration that it was given."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        interval: float = INTERVAL_S,
        batch: int = BATCH,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ledger = ledger
        self._interval = interval
        self._batch = batch
        self._clock = clock
        self._days: Mapping[str, int | None] = {}
        self._deleted: Counter[str] = Counter()
        self._owes_room = False
        """Whether rows were deleted whose room cannot be used again yet."""
        self._changed = asyncio.Event()
        self._stopping = threading.Event()

    def configure(self, config: Config) -> None:
        """Keep what this configuration's plans say from now on, in the middle of a round too."""
        self._days = {
            workspace_id: config.plan_of(workspace).retention_days
            for workspace_id, workspace in config.workspaces.items()
        }
        self._changed.set()

    def deleted(self) -> Mapping[Labels, int]:
        """Rows deleted since this process began, by workspace; with 0, a configured one of which none was."""
        return {(workspace_id,): self._deleted[workspace_id] for workspace_id in {*self._days, *self._deleted}}

    async def run(self) -> None:
        """A round now, each `interval` seconds, and after each change, until cancelled; a batch is not left behind."""
        while True:
            self._changed.clear()
            rounding = asyncio.create_task(asyncio.to_thread(self.round))
            try:
                await asyncio.shield(rounding)
            except asyncio.CancelledError:
                self._stopping.set()
                await rounding
                raise
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._changed.wait()

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
        if self._owes_room and not self._stopping.is_set():
            self._owes_room = not self._ledger.reclaim(self._clock())

    def _delete_batch(self, workspace_id: str) -> bool:
        """Whether there was anything to delete. It takes half of the time at most: the rest is others'."""
        days = self._days.get(workspace_id)  # as it is now: a plan that keeps more holds at once
        if days is None or self._stopping.is_set():
            return False
        began = time.monotonic()
        deleted = delete_batch(self._ledger, workspace_id, self._clock() - days * DAY_NS, most=self._batch)
        self._deleted[workspace_id] += deleted
        if deleted:
            self._owes_room = True
            self._stopping.wait(time.monotonic() - began)
        return deleted > 0
