"""Plans and their limits: whether a workspace may make another call this month, and what its client gets if not.

The count has three parts: what the ledger had counted at the last snapshot, the calls of this relay that are running,
and those that have ended but whose record lies behind the snapshot's position in this relay's journal. Each call is
in exactly one part, so the sum is exact for this relay's own calls. Calls of other relays count as soon as a snapshot
has them (docs/ledger.md says by how much several relays can exceed a limit together).
"""

import asyncio
import logging
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from gateway.calls import Decision, ErrorType
from gateway.config import Config
from gateway.journal import Writer
from gateway.months import Month, month_of
from gateway.quota_snapshot import QuotaSnapshot, read_snapshot, snapshot_path

logger = logging.getLogger(__name__)

FRESH_NS: Final = 10 * 10**9
"""An older snapshot counts for nothing: then `usage.fail` decides."""
CODE: Final = 429
"""The code of the JSON-RPC error. Like every refusal by the gateway itself, it is the HTTP status."""

CountUnknown = Callable[[str, Decision], None]
"""Takes the workspace and the decision on a call for which no fresh snapshot exists."""


class Limit(NamedTuple):
    """What a workspace's plan allows."""

    plan: str
    calls: int
    """In a calendar month (UTC)."""


class QuotaExceeded(NamedTuple):
    """Why a call is refused, and the three forms in which its client gets to know."""

    limit: Limit
    used: int | None
    """None: there is no fresh snapshot, and `usage.fail` is `closed`."""
    month: Month

    @property
    def message(self) -> str:
        """The error's `message`, for a person or a model."""
        plan, calls = self.limit
        if self.used is None:
            return (
                f"it is not known how much of its plan {plan!r} ({calls:,} calls a month) this workspace has used, and "
                "calls are refused until it is known (usage.fail: closed). Try again in a few seconds. If this "
                "persists, the log of the gateway's observer has the reason"
            )
        return (
            f"the plan {plan!r} allows {calls:,} calls a month, and all of them are used. Calls are served again from "
            f"{_utc(self.month.end_ns)}, or as soon as the gateway's operator gives the workspace a larger plan"
        )

    @property
    def data(self) -> dict[str, Any]:
        """The error's `data`, for programs."""
        return {
            "error_type": ErrorType.QUOTA_EXCEEDED.value,
            "plan": self.limit.plan,
            "limit": self.limit.calls,
            "used": self.used,
            "period": self.month.label,
            "period_end": _utc(self.month.end_ns),
        }

    def retry_after_s(self, now_ns: int) -> int:
        """`Retry-After`: until the month ends, or 10 seconds while the count is unknown."""
        wait_ns = FRESH_NS if self.used is None else self.month.end_ns - now_ns
        return max(-(-wait_ns // 10**9), 1)


class _Usage:
    """The calls of one workspace in the current month."""

    __slots__ = ("counted", "ended", "running")

    def __init__(self) -> None:
        self.counted = 0
        """By the ledger, at the last snapshot."""
        self.running = 0
        self.ended = array("Q")
        """Of this relay's calls that the snapshot does not have: where each record ends in the journal, ascending."""

    def total(self) -> int:
        return self.counted + self.running + len(self.ended)


class UsageCounter:
    """Counts the calls of every workspace, limited or not. Times are arguments; there is no clock and no file."""

    def __init__(self, writer_id: str) -> None:
        """`writer_id` is this relay's in the journal."""
        self._writer_id = writer_id
        self._usages: dict[str, _Usage] = {}
        self.month = month_of(0)
        self.known_at_ns = -FRESH_NS
        """The time for which the last snapshot stands."""

    def usage(self, workspace_id: str, timestamp_ns: int) -> _Usage:
        if timestamp_ns >= self.month.end_ns:
            self._begin_month(timestamp_ns)
        return self._usages.get(workspace_id) or self._usages.setdefault(workspace_id, _Usage())

    def end(self, workspace_id: str, timestamp_ns: int, offset: int) -> None:
        """A call that was admitted at `timestamp_ns` has ended. Its record ends at `offset` of this relay's journal."""
        if timestamp_ns >= self.month.start_ns:  # a call counts for the month in which it began
            usage = self._usages[workspace_id]
            usage.running -= 1
            usage.ended.append(offset)

    def discard(self, workspace_id: str, timestamp_ns: int) -> None:
        """A call that was admitted turned out to be a bad request: there is no record of it."""
        if timestamp_ns >= self.month.start_ns:
            self._usages[workspace_id].running -= 1

    def update(self, snapshot: QuotaSnapshot, now_ns: int) -> None:
        """Take over a snapshot as the state of `now_ns`. Snapshots come in the order of their time."""
        newest_ns = max(snapshot.month_start_ns, now_ns)
        if newest_ns >= self.month.end_ns:
            self._begin_month(newest_ns)
        used = snapshot.used if snapshot.month_start_ns == self.month.start_ns else {}
        position = snapshot.positions.get(self._writer_id, 0)
        for workspace_id in used.keys() - self._usages.keys():
            self._usages[workspace_id] = _Usage()
        for workspace_id, usage in self._usages.items():
            usage.counted = used.get(workspace_id, 0)
            del usage.ended[: bisect_right(usage.ended, position)]
        self.known_at_ns = now_ns

    def _begin_month(self, now_ns: int) -> None:
        self.month = month_of(now_ns)
        self._usages = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The limits of one configuration, and the counter that all configurations share."""

    counter: UsageCounter
    limits: Mapping[str, Limit]
    """By workspace id; a workspace without a limit is missing."""
    fail_closed: bool
    count_unknown: CountUnknown
    tolerant_until_ns: int = 0
    """Until then calls are let through while no snapshot exists yet, even with `fail: closed`."""

    def admit(self, workspace_id: str, timestamp_ns: int) -> QuotaExceeded | None:
        """Count a call that begins at `timestamp_ns` as running, unless the plan does not allow it.

        The counter has to learn of each admitted call's `end`, or that it is to `discard` it.
        """
        counter = self.counter
        usage = counter.usage(workspace_id, timestamp_ns)
        limit = self.limits.get(workspace_id)
        if limit is not None:
            if abs(timestamp_ns - counter.known_at_ns) <= FRESH_NS:
                used = usage.total()
                if used >= limit.calls:
                    return QuotaExceeded(limit, used, counter.month)
            elif self.fail_closed and timestamp_ns >= self.tolerant_until_ns:
                self.count_unknown(workspace_id, "refused")
                return QuotaExceeded(limit, None, counter.month)
            else:
                self.count_unknown(workspace_id, "allowed")
        if timestamp_ns >= counter.month.start_ns:  # false if the clock was set back over the month's start
            usage.running += 1
        return None


class QuotaEnforcement:
    """Gives each configuration its quota, and the counter the observer's snapshots."""

    def __init__(
        self,
        data_dir: Path,
        journal: Writer,
        count_unknown: CountUnknown,
        *,
        clock: Callable[[], int] = time.time_ns,
        poll_s: float = 0.5,
        first_wait_s: float = 5.0,
    ) -> None:
        """`first_wait_s`: how long a relay with `fail: closed` waits for a first snapshot before it serves."""
        self._path = snapshot_path(data_dir)
        self._journal = journal
        self._count_unknown = count_unknown
        self._clock = clock
        self._poll_s = poll_s
        self._first_wait_s = first_wait_s
        self._counter: UsageCounter | None = None
        self._read_ns: int | None = None
        """When the snapshot that the counter has was written."""
        self._tolerant_until_ns = 0
        self._fail_closed = False

    def quota_of(self, config: Config) -> Quota | None:
        """The quota that holds from now on. None: plans are not enforced."""
        if not config.usage.enforce:
            self._counter = None
            return None
        if self._counter is None:
            self._counter = UsageCounter(self._journal.writer_id)
            self._read_ns = None
            # Enforcement is switched on in a relay that serves already: the observer's first snapshot is on its way.
            self._tolerant_until_ns = self._clock() + FRESH_NS if self._journal.offset else 0
        self._fail_closed = config.usage.fail == "closed"
        return Quota(
            counter=self._counter,
            limits=limits_of(config),
            fail_closed=self._fail_closed,
            count_unknown=self._count_unknown,
            tolerant_until_ns=self._tolerant_until_ns,
        )

    async def prepare(self) -> None:
        """Read the snapshot before the first call. With `fail: closed`, wait for one to appear, but not for long."""
        deadline = time.monotonic() + self._first_wait_s
        await self.poll()
        while self._fail_closed and self._counter is not None and self._read_ns is None and time.monotonic() < deadline:
            await asyncio.sleep(self._poll_s / 10)
            await self.poll()

    async def run(self) -> None:
        """Read each new snapshot, until cancelled."""
        while True:
            await asyncio.sleep(self._poll_s)
            await self.poll()

    async def poll(self) -> None:
        """Read the snapshot, if there is a new one."""
        counter = self._counter
        if counter is None:
            return
        snapshot = await asyncio.to_thread(read_snapshot, self._path)
        # A reload may have replaced the counter while the file was read.
        if snapshot is None or snapshot.written_ns == self._read_ns or counter is not self._counter:
            return
        # The first snapshot counts as of now, however old: the observer, which starts with this relay, follows it up.
        counter.update(snapshot, self._clock() if self._read_ns is None else snapshot.written_ns)
        self._read_ns = snapshot.written_ns


def limits_of(config: Config) -> dict[str, Limit]:
    """The limit of each workspace whose plan has one."""
    return {
        slug: Limit(workspace.plan, calls)
        for slug, workspace in config.workspaces.items()
        if (calls := config.plan_of(workspace).calls_per_month) is not None
    }


def _utc(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
