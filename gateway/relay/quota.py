"""Whether a workspace's plan allows another call: what the ledger has counted, and what it cannot have counted yet.

No clock and no file: times are arguments. The law: a call is counted once, in one of three places. While it runs it is
in flight; when its record is written it is behind, until a report of the ledger says that it has come past it. So the
sum is exact for all that this process serves, and for the rest as old as the report.
"""

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple

from gateway.calls import Decision
from gateway.months import Month, month_of
from gateway.quota_snapshot import QuotaSnapshot

FRESH_NS: Final = 10 * 10**9
"""A report that is older says nothing any more."""

GONE_NS: Final = 60 * 10**9
"""A writer of which reports say nothing for so long is gone, and with it what the ledger had not read."""
MAX_OFFSET: Final = 2**63

Fail = Literal["open", "closed"]


class Limit(NamedTuple):
    """What a workspace's plan allows."""

    plan: str
    calls: int
    """In a calendar month in UTC."""


class QuotaExceeded(NamedTuple):
    """A call that is not to be made."""

    limit: Limit
    used: int | None
    """None: it is not known."""
    month: Month


class Behind(NamedTuple):
    """A call that another writer of the journal recorded, or will, at or before an offset."""

    writer: str
    offset: int
    workspace_id: str
    timestamp_ns: int


class _Tally:
    """One workspace's calls of the month that count against the limit."""

    __slots__ = ("behind", "elsewhere", "in_flight", "used")

    def __init__(self) -> None:
        self.used = 0
        """The ledger's count."""
        self.in_flight = 0
        self.behind = array("Q")
        """Where the records of this process's calls end that the ledger has not come past; ascending."""
        self.elsewhere = 0
        """Other writers' calls that it had not come past when this process began."""


class Quota:
    """The calls of every workspace, and the limits of those that have one."""

    def __init__(self, writer_id: str, unsure: Callable[[str, Decision], None]) -> None:
        """`writer_id` is this process's in the journal; `unsure` hears of decisions that no knowledge stands behind."""
        self._writer_id = writer_id
        self._unsure = unsure
        self._limits: Mapping[str, Limit] = {}
        self._refuses = False
        self._tallies: dict[str, _Tally] = {}
        self._behind: list[Behind] = []
        self._began_ns = 0
        self._month = month_of(0)
        self._known_at_ns = -FRESH_NS
        self._spared_until_ns = 0

    def configure(self, limits: Mapping[str, Limit], fail: Fail) -> None:
        """Hold these workspaces to these limits from now on; `fail` is what happens while it is not known."""
        self._limits = limits
        self._refuses = fail == "closed"

    def spare(self, until_ns: int) -> None:
        """Let calls through that nothing is known of, whatever `fail` says: the first report is on its way."""
        self._spared_until_ns = until_ns

    def take(self, workspace_id: str, timestamp_ns: int) -> QuotaExceeded | None:
        """Count a call that begins at `timestamp_ns` as in flight, unless the plan does not allow it.

        One that was taken must be given back, or come to its end.
        """
        if timestamp_ns >= self._month.end_ns:
            self._turn(timestamp_ns)
        tally = self._tallies.get(workspace_id) or self._tallies.setdefault(workspace_id, _Tally())
        limit = self._limits.get(workspace_id)
        if limit is not None:
            if abs(timestamp_ns - self._known_at_ns) <= FRESH_NS:
                used = tally.used + tally.in_flight + len(tally.behind) + tally.elsewhere
                if used >= limit.calls:
                    return QuotaExceeded(limit, used, self._month)
            elif self._refuses and timestamp_ns >= self._spared_until_ns:
                self._unsure(workspace_id, "refused")
                return QuotaExceeded(limit, None, self._month)
            else:
                self._unsure(workspace_id, "allowed")
        if timestamp_ns >= self._month.start_ns:
            tally.in_flight += 1
        return None

    def end(self, workspace_id: str, timestamp_ns: int, offset: int) -> None:
        """A call that was taken has ended; its record ends at `offset` of this process's part of the journal."""
        if timestamp_ns >= self._month.start_ns:  # else it counts for a month that is over
            tally = self._tallies[workspace_id]
            tally.in_flight -= 1
            tally.behind.append(offset)

    def give_back(self, workspace_id: str, timestamp_ns: int) -> None:
        """A call that was taken was none: there is no record of it."""
        if timestamp_ns >= self._month.start_ns:
            self._tallies[workspace_id].in_flight -= 1

    def begin(self, report: QuotaSnapshot, behind: Iterable[Behind], now_ns: int) -> None:
        """Take the first report, and the calls behind it that this process has not taken; as if it were of `now_ns`."""
        self._turn_to(report, now_ns)
        self._began_ns = now_ns
        self._behind = [one for one in behind if one.timestamp_ns >= self._month.start_ns]
        self.learn(report, now_ns)

    def learn(self, report: QuotaSnapshot, now_ns: int) -> None:
        """Take what the ledger had counted at `now_ns`; reports come in their order."""
        self._turn_to(report, now_ns)
        same_month = report.month_start_ns == self._month.start_ns
        position = report.positions.get(self._writer_id, 0)
        for workspace_id in report.used.keys() - self._tallies.keys():
            self._tallies[workspace_id] = _Tally()
        for workspace_id, tally in self._tallies.items():
            tally.used = report.used.get(workspace_id, 0) if same_month else 0
            tally.elsewhere = 0
            del tally.behind[: bisect_right(tally.behind, position)]
        absent = -1 if now_ns - self._began_ns < GONE_NS else MAX_OFFSET
        self._behind = [one for one in self._behind if one.offset > report.positions.get(one.writer, absent)]
        for one in self._behind:
            self._tallies.setdefault(one.workspace_id, _Tally()).elsewhere += 1
        self._known_at_ns = now_ns

    def _turn_to(self, report: QuotaSnapshot, now_ns: int) -> None:
        newest_ns = max(report.month_start_ns, now_ns)
        if newest_ns >= self._month.end_ns:
            self._turn(newest_ns)

    def _turn(self, now_ns: int) -> None:
        """A month begins: nothing is used. What is still in flight, or behind, is the month's before."""
        self._month = month_of(now_ns)
        self._tallies = {}
        self._behind = []
