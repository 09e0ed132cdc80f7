"""The ledger's sink: rows and the journal's positions are committed together, so that each call is there once."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from gateway.calls import ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.journal import Batch
from gateway.ledger.driver import Ledger
from gateway.ledger.queries import Query

IDLE_COMMIT_NS: Final = 10 * 10**9
"""Positions also move without a call, by heartbeats; then they are committed at this interval."""
_POSITIONS: Final = "select writer, next_offset, as_of_ns from positions where journal = $journal"
_DELETE_POSITIONS: Final = "delete from positions where journal = $journal and writer = any($writers)"
_MOVE_POSITIONS: Final = """
    insert into positions (journal, writer, next_offset, as_of_ns)
    select $journal, unnest(cast($writers as text[])), unnest(cast($offsets as bigint[])), $as_of_ns
    on conflict (journal, writer) do update set next_offset = excluded.next_offset, as_of_ns = excluded.as_of_ns
    """


class LedgerSink:
    """Takes the journal's batches into the ledger; a batch that comes again changes nothing."""

    name = "ledger"

    def __init__(self, ledger: Ledger, *, journal_id: str = "", clock: Callable[[], int] = time.time_ns) -> None:
        """`journal_id` distinguishes the journals that share a ledger; a journal with its own ledger needs none."""
        self._ledger = ledger
        self._journal_id = journal_id
        self._positions = Query(_POSITIONS, {"journal": journal_id})
        self._clock = clock
        self._pass_began_ns = clock()
        self._committed: Mapping[str, int] | None = None
        self._committed_at_ns = 0

    @property
    def committed(self) -> Mapping[str, int]:
        """The positions that are committed: beside the rows, never ahead of them nor behind.

        Raises:
            LedgerUnavailableError: only the ledger knows them, and it is away.
        """
        return self._committed if self._committed is not None else self._load()

    def process(self, batch: Batch) -> None:
        """Commit the batch's calls and positions, if it has calls that are new, and now and then if it has none.

        Raises:
            LedgerUnavailableError: nothing of it is kept, or all of it and the same batch will change nothing.
        """
        committed = self.committed
        calls = [
            event
            for event, writer, offset in batch.entries
            if isinstance(event, ToolCall) and offset > committed.get(writer, 0)
        ]
        positions = {writer: max(offset, committed.get(writer, 0)) for writer, offset in batch.positions.items()}
        # What stood in the journal when the pass before this one ended was there when this batch was read.
        fresh_ns = self._pass_began_ns if batch.lag_bytes == 0 else self._ledger.fresh_as_of_ns
        idle = not 0 <= self._pass_began_ns - self._committed_at_ns < IDLE_COMMIT_NS
        if calls or (idle and positions != committed):
            self._commit(calls, committed, positions, as_of_ns=fresh_ns or 0)
        self._ledger.fresh_as_of_ns = fresh_ns
        self._pass_began_ns = self._clock()

    def _commit(
        self, calls: list[ToolCall], committed: Mapping[str, int], positions: Mapping[str, int], *, as_of_ns: int
    ) -> None:
        gone = committed.keys() - positions.keys()
        self._committed = None  # a commit that fails may have happened all the same: then only the ledger knows
        with self._ledger.transaction() as transaction:
            transaction.claim(self._journal_id)
            if {writer: offset for writer, offset, _ in transaction.rows(self._positions)} != committed:
                raise LedgerUnavailableError("another commit was still under way: the batch is taken again behind it")
            transaction.insert(calls)
            journal: dict[str, object] = {"journal": self._journal_id}
            if gone:
                transaction.execute(Query(_DELETE_POSITIONS, {**journal, "writers": list(gone)}))
            moved = {writer: offset for writer, offset in positions.items() if committed.get(writer) != offset}
            if moved:
                to = {"writers": list(moved), "offsets": list(moved.values()), "as_of_ns": as_of_ns}
                transaction.execute(Query(_MOVE_POSITIONS, {**journal, **to}))
        self._committed = dict(positions)
        self._committed_at_ns = self._clock()

    def _load(self) -> Mapping[str, int]:
        with self._ledger.snapshot() as snapshot:
            rows = snapshot.rows(self._positions)
        self._committed = {writer: offset for writer, offset, _ in rows}
        if self._ledger.fresh_as_of_ns is None:
            self._ledger.fresh_as_of_ns = max((as_of for _, _, as_of in rows), default=0) or None
        return self._committed
