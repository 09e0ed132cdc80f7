"""Where the quota gets what it knows from: the configuration, the observer's reports, and once the journal itself.

A process that begins knows the last report, however old, and reads in the journal what has been recorded since. So a
gateway that is started anew, or whose relay was killed, goes on counting where it was, before the observer says
anything.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.calls import CallStart, Decision, ErrorType, ToolCall
from gateway.config import Config
from gateway.journal import Reader, Writer
from gateway.journal.segments import CLOSED, list_segments, list_writers
from gateway.quota_snapshot import QuotaSnapshot, read_snapshot, snapshot_path
from gateway.relay.quota import FRESH_NS, Behind, Limit, Quota

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.5
WAIT_S: Final = 5.0
"""What a relay that refuses while it knows nothing waits for the first report of all, before it serves."""
MAX_BEHIND_BYTES: Final = 256 * 2**20
"""More of the journal is not read: the ledger is too far behind for its report to be completed."""

_REFUSED: Final = frozenset({ErrorType.RATE_LIMITED, ErrorType.QUOTA_EXCEEDED})
_ALL: Final = 2**62
"""A position behind everything that a writer can write."""


class Enforcement:
    """The quota, while `usage.enforce` is set."""

    def __init__(
        self,
        config: Config,
        journal: Writer,
        unsure: Callable[[str, Decision], None],
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.quota: Quota | None = None
        self._journal = journal
        self._unsure = unsure
        self._clock = clock
        self._path = snapshot_path(config.data_dir)
        self._root = config.data_dir / "journal"
        self._began_at = 0
        """This process's part of the journal, when the quota began."""
        self._learned_ns: int | None = None
        """When the report was written that is known."""
        self._waits = False
        self.apply(config)

    def apply(self, config: Config) -> None:
        """Hold workspaces to this configuration's plans from now on, or to none."""
        if not config.usage.enforce:
            self.quota = None
            return
        if self.quota is None:
            self.quota = Quota(self._journal.writer_id, self._unsure)
            self._began_at = self._journal.offset
            self._learned_ns = None
            if self._began_at:  # a relay that serves already; the observer hears of the change when this process does
                self.quota.spare(self._clock() + FRESH_NS)
        self._waits = config.usage.fail == "closed"
        self.quota.configure(limits_of(config), config.usage.fail)

    async def begin(self) -> None:
        """Know what there is to know, before the first call."""
        deadline = time.monotonic() + WAIT_S
        await self.look()
        while self._waits and self.quota is not None and self._learned_ns is None and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S / 10)
            await self.look()

    async def watch(self) -> None:
        """Look for a new report again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take the report, if it is a new one."""
        quota = self.quota
        if quota is None:
            return
        try:
            report = await asyncio.to_thread(read_snapshot, self._path)
            if report is None or report.written_ns == self._learned_ns:
                return
            if self._learned_ns is not None:
                quota.learn(report, report.written_ns)
            elif not await self._begin(quota, report):
                return
        except Exception:
            logger.exception("it is not known what the workspaces have used of their plans")
            return
        if quota is self.quota:
            self._learned_ns = report.written_ns

    async def _begin(self, quota: Quota, report: QuotaSnapshot) -> bool:
        own = (self._journal.writer_id, self._began_at)
        behind = await asyncio.to_thread(calls_behind, self._root, report.positions, own)
        if behind is None:
            logger.warning("%s is too old to go on from: the next report is waited for", self._path)
            return False
        quota.begin(report, behind, self._clock())
        return True


def limits_of(config: Config) -> dict[str, Limit]:
    """The limit of each workspace whose plan has one."""
    plans = {slug: (workspace.plan, config.plan_of(workspace)) for slug, workspace in config.workspaces.items()}
    return {
        slug: Limit(name, plan.calls_per_month)
        for slug, (name, plan) in plans.items()
        if plan.calls_per_month is not None
    }


def calls_behind(root: Path, positions: Mapping[str, int], own: tuple[str, int]) -> list[Behind] | None:
    """The calls that use a plan up and are recorded behind `positions`, and those that are open.

    `own` is the id of this process's writer, and where its records begin that are counted as they are written. None if
    the journal has less than that, or too much to be read now.
    """
    begins: dict[str, int] = {}
    size = 0
    for folder in list_writers(root):
        segments = list_segments(folder)
        if not segments:
            continue
        position = positions.get(folder.name, 0)
        if segments[0].base > position:
            return None
        begin = position
        if folder.name == own[0]:
            begin = position if position < own[1] else _ALL
        elif not (folder / CLOSED).exists():
            begin = min(position, segments[-1].base)  # it begins with the start lines of the calls that are open
        begins[folder.name] = begin
        size += max(segments[-1].end - begin, 0)
    if size > MAX_BEHIND_BYTES:
        return None
    return list(_read(root, begins, positions, own))


def _read(
    root: Path, begins: Mapping[str, int], positions: Mapping[str, int], own: tuple[str, int]
) -> Iterator[Behind]:
    reader = Reader(root, CallStart, ToolCall)
    ends = dict(begins)
    still_open: dict[str, Behind] = {}
    while True:
        batch = reader.read(ends)
        ends = batch.positions
        for event, writer, offset in batch.entries:
            if writer == own[0] and offset > own[1]:
                continue
            match event:
                case CallStart():
                    still_open[event.call_id] = Behind(writer, offset, event.workspace_id, event.timestamp_ns)
                case ToolCall():
                    still_open.pop(event.call_id, None)
                    if offset > positions.get(writer, 0) and event.error_type not in _REFUSED:
                        yield Behind(writer, offset, event.workspace_id, event.timestamp_ns)
                case _:
                    pass
        if batch.lag_bytes == 0:
            break
    for one in still_open.values():  # their records will stand behind everything that there is now
        yield one._replace(offset=ends[one.writer] + 1)
