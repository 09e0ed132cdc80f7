"""What a database must do to be the ledger: the interface between the two drivers and all who read or write."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from gateway.calls import ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.ledger.queries import Query, record_first_seen
from gateway.ledger.rows import storable, to_call


class QueryTimeoutError(LedgerUnavailableError):
    """The ledger took too long for this query and was interrupted."""

    def __init__(self) -> None:
        super().__init__("the ledger took too long for this query and was interrupted: ask for a shorter range")


class Snapshot(ABC):
    """Reads, all of the same state of the ledger."""

    @abstractmethod
    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        """The rows of `query`.

        Raises:
            LedgerUnavailableError: it was interrupted, or the database does not answer.
        """

    def calls(self, query: Query) -> list[ToolCall]:
        """The records of a query whose rows are `COLUMNS`."""
        return [to_call(row) for row in self.rows(query)]


class Transaction(Snapshot):
    """Reads and writes that happen together or not at all; each raises `LedgerUnavailableError` if it fails."""

    @abstractmethod
    def claim(self, journal_id: str) -> None:
        """Wait for every other transaction that has claimed this journal, and block later ones until the end.

        One whose connection was lost may still be about to commit: what it writes must be seen, and not written again.
        """

    @abstractmethod
    def write(self, calls: Sequence[ToolCall]) -> None:
        """Add a row for each call, which is storable."""

    def execute(self, query: Query) -> None:
        self.rows(query)

    def insert(self, calls: Sequence[ToolCall]) -> None:
        """Add a row for each call, and note whose names are new."""
        if calls:
            stored = [storable(call) for call in calls]
            self.write(stored)
            self.execute(record_first_seen(stored))


class Ledger(Protocol):
    """An open ledger. Snapshots may be taken from any thread while another one writes."""

    fresh_as_of_ns: int | None
    """The ledger has every call whose record was in this replica's journal at this time; None if that is unknown."""

    def snapshot(self, *, seconds: float | None = None) -> AbstractContextManager[Snapshot]:
        """Read one state of the ledger, whatever is written meanwhile, for `seconds` at most.

        Raises:
            LedgerUnavailableError: the ledger is closed, or away.
        """

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Write: committed at the end of the block, and nothing of it if the block raises.

        Raises:
            LedgerUnavailableError: the ledger is away, or the commit failed. It may have happened all the same.
        """

    def reclaim(self, now_ns: int) -> bool:
        """Let the space of deleted rows be used again; False if others were at work: try again later.

        Raises:
            LedgerUnavailableError: the ledger is closed, or away.
        """

    def close(self) -> None:
        """Let go of the database, once the last snapshot has ended. Idempotent."""
