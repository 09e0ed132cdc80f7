"""Writes the file from which the relays know how much of each plan is used, about every second.

It writes only while `usage.enforce` is set. While the ledger is unavailable there is no new snapshot, and the relays
decide what the age of the last one means.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gateway.atomic_file import remove_drafts
from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger, queries
from gateway.ledger.queries import Query
from gateway.months import month_of
from gateway.quota_snapshot import QuotaSnapshot, snapshot_path, write_snapshot

logger = logging.getLogger(__name__)

# Counting may take a tenth of the time: a month with millions of calls is counted less often than each second.
# But even then a snapshot is replaced before the relays find it too old (10 s).
_PAUSE_FACTOR: Final = 9
_LONGEST_PAUSE_S: Final = 4.0

_Row = tuple[str, str, int]
_POSITIONS: Final = Query("select journal, writer, next_offset from positions order by journal, writer", {})


class QuotaSnapshotWriter:
    """Writes for the newest configuration. `journal_id` is the ledger's name of this journal."""

    def __init__(
        self,
        ledger: Ledger,
        data_dir: Path,
        *,
        journal_id: str,
        interval_s: float = 1.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._ledger = ledger
        self._path = snapshot_path(data_dir)
        with contextlib.suppress(OSError):  # what is wrong with the folder, the first write will show
            remove_drafts(self._path)
        self._journal_id = journal_id
        self._interval_s = interval_s
        self._clock = clock
        self._enforced = False
        self._failing = False
        self._changed = asyncio.Event()
        self._counted: tuple[int, list[_Row]] | None = None
        """The month and the positions that `_used` is the count of: it is counted again only if one of them moved."""
        self._used: Mapping[str, int] = {}

    def configure(self, config: Config) -> None:
        self._enforced = config.usage.enforce
        self._changed.set()

    async def run(self) -> None:
        """Write now, each interval, and when the configuration changes, until cancelled."""
        while True:
            self._changed.clear()
            began = time.monotonic()
            await asyncio.to_thread(self.write)
            pause_s = min(max(self._interval_s, _PAUSE_FACTOR * (time.monotonic() - began)), _LONGEST_PAUSE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s if self._enforced else None):
                    await self._changed.wait()

    def write(self) -> None:
        """Write a snapshot, or remove the last one if plans are not enforced: it would be believed as it ages.

        The first failure in a row is logged.
        """
        if not self._enforced:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            return
        try:
            write_snapshot(self._path, self._snapshot())
        except (LedgerUnavailableError, OSError) as error:
            if not self._failing:
                logger.warning("the relays do not get the count of used calls: %s", error)
            self._failing = True
        except Exception:
            logger.exception("the relays do not get the count of used calls")
            self._failing = True
        else:
            self._failing = False

    def _snapshot(self) -> QuotaSnapshot:
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
