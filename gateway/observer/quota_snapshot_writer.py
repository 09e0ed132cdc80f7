"""Tells the relays what the ledger has counted of each plan: a new report each second, while `usage.enforce` is set.

While the ledger is away there is none, and the last one gets old: what that means is the relays' to decide.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger, queries
from gateway.ledger.queries import Query
from gateway.months import month_of
from gateway.quota_snapshot import QuotaSnapshot, remove_snapshot, snapshot_path, write_snapshot

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0
IDLE_FOR_BUSY: Final = 9
"""Counting takes one tenth of the time at most: a month of millions of calls is counted less often."""
MAX_INTERVAL_S: Final = 4.0
"""But a report does not get old for that."""

_Row = tuple[str, str, int]
_POSITIONS: Final = Query("select journal, writer, next_offset from positions order by journal, writer", {})


class QuotaSnapshotWriter:
    """Writes for the last configuration that it was given. `journal_id` is the ledger's name of this journal."""

    def __init__(
        self,
        ledger: Ledger,
        data_dir: Path,
        *,
        journal_id: str,
        interval: float = INTERVAL_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ledger = ledger
        self._path = snapshot_path(data_dir)
        self._journal_id = journal_id
        self._interval = interval
        self._clock = clock
        self._enforced = False
        self._failing = False
        self._changed = asyncio.Event()
        self._counted: tuple[int, list[_Row]] | None = None
        """The month and all positions of which `_used` is the count: without a new one nothing new is to be counted."""
        self._used: Mapping[str, int] = {}

    def configure(self, config: Config) -> None:
        """Write from now on, or no more."""
        self._enforced = config.usage.enforce
        self._changed.set()

    async def run(self) -> None:
        """A report now, each `interval` seconds, and when the configuration changes, until cancelled."""
        while True:
            self._changed.clear()
            began = time.monotonic()
            await asyncio.to_thread(self.write)
            pause = min(max(self._interval, IDLE_FOR_BUSY * (time.monotonic() - began)), MAX_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause if self._enforced else None):
                    await self._changed.wait()

    def write(self) -> None:
        """Write one; a failure is logged once, until it is over. Without enforcement, take away what there was."""
        if not self._enforced:
            remove_snapshot(self._path)
            return
        try:
            write_snapshot(self._path, self._report())
        except (LedgerUnavailableError, OSError) as error:
            if not self._failing:
                logger.warning("the relays are not told what plans have been used: %s", error)
            self._failing = True
        except Exception:
            logger.exception("the relays are not told what plans have been used")
            self._failing = True
        else:
            self._failing = False

    def _report(self) -> QuotaSnapshot:
        now_ns = self._clock()
        month = month_of(now_ns)
        with self._ledger.snapshot() as snapshot:
            positions: list[_Row] = snapshot.rows(_POSITIONS)
            if self._counted != (month.start_ns, positions):
                query = queries.used_by_every_workspace(month.start_ns, month.end_ns)
                self._used = {workspace_id: int(calls) for workspace_id, calls in snapshot.rows(query)}
                self._counted = month.start_ns, positions
        return QuotaSnapshot(
            written_ns=now_ns,
            month_start_ns=month.start_ns,
            used=dict(self._used),
            positions={writer: offset for journal, writer, offset in positions if journal == self._journal_id},
        )
