"""What a database must do to be the ledger: the seam between the two drivers and all who read or write."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from gateway.calls import ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.ledger.queries import Query


class QueryTimeoutError(LedgerUnavailableError):
    """The ledger took too long for this question and was interrupted: ask for a shorter range."""

    def __init__(self) -> None:
        super().__init__("the ledger took too long for this question and was interrupted: ask for a shorter range")


class Snapshot(Protocol):
    """Reads, all of the same state of the ledger."""

    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        """The rows of `query`.

        Raises:
            LedgerUnavailableError: it was interrupted, or the database does not answer.
        """

    def calls(self, query: Query) -> list[ToolCall]:
        """The records of a query whose rows are `COLUMNS`."""


class Transaction(Snapshot, Protocol):
    """Reads and writes that happen together or not at all."""

    def claim(self, journal_id: str) -> None:
        """Wait for every other transaction that has claimed this journal, and have it alone until the end.

        One whose connection was lost may still be about to commit: what it writes must be seen, and not written again.
        """

    def execute(self, query: Query) -> None:
        """Run one statement.

        Raises:
            LedgerUnavailableError: it failed.
        """

    def insert(self, calls: Sequence[ToolCall]) -> None:
        """Add a row for each call.

        Raises:
            LedgerUnavailableError: it failed.
        """


class Ledger(Protocol):
    """An open ledger. Snapshots may be taken from any thread while another one writes."""

    fresh_as_of_ns: int | None
    """The ledger has every call whose record was in the journal at this time; None while that is unknown."""

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
        """Let what deleted rows took be used again; False if others were at work, so that it has to be tried later.

        Raises:
            LedgerUnavailableError: the ledger is closed, or away.
        """

    def close(self) -> None:
        """Let go of the database, once the last snapshot has ended. Idempotent."""
