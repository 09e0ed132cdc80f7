"""The ledger in PostgreSQL, shared by several replicas.

`calls` is partitioned by month, so that a month that retention has emptied is dropped and not vacuumed.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from psycopg import errors

from gateway.calls import ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.ledger.driver import Snapshot, Transaction
from gateway.ledger.postgres_pool import CHECK_S, CONNECT_S, OUTAGES, PostgresPool, cut_after, unavailable
from gateway.ledger.queries import Query
from gateway.ledger.rows import COLUMNS, to_row
from gateway.ledger.schema import migrate
from gateway.months import DAY_NS, Month, month_of

QUERY_SECONDS: Final = 30.0
"""A snapshot that is open for longer is cut off."""
WRITE_SECONDS: Final = 20.0
"""A transaction, too. A server that does not answer any more is noticed within this time."""

LOCK_MS: Final = 500
"""Milliseconds that dropping a partition waits for readers: new readers wait behind it."""
GRACE_SECONDS: Final = 2.0
"""The server interrupts a statement itself; only after this is the connection cut."""

_READ: Final = "begin isolation level repeatable read read only"
_WRITE: Final = "begin"
_LOCK: Final = 0x43414C4C  # the schema: one replica at a time migrates, or creates a partition
_CLAIM: Final = 0x4A52  # one journal; a lock of two numbers differs from any lock of one
_COPY: Final = f"copy calls ({', '.join(COLUMNS)}) from stdin"
_PARTITIONS: Final = Query("select inhrelid::regclass::text from pg_inherits where inhparent = 'calls'::regclass")
_PARAMETER: Final = re.compile(r"\$([a-z_][a-z0-9_]*)")


def _sql(text: str) -> str:
    """The text with psycopg's placeholders."""
    return _PARAMETER.sub(r"%(\1)s", text)


class PostgresSnapshot(Snapshot):
    """Reads through a connection that is in a transaction."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        with _outages(), self._connection.cursor() as cursor:
            cursor.execute(_sql(query.sql), dict(query.parameters) or None)
            return cursor.fetchall() if cursor.description is not None else []


class PostgresTransaction(PostgresSnapshot, Transaction):
    """Reads and writes through a connection that is in a transaction."""

    def claim(self, journal_id: str) -> None:
        self.execute(
            Query("select pg_advisory_xact_lock($lock, hashtext($journal))", {"lock": _CLAIM, "journal": journal_id})
        )

    def write(self, calls: Sequence[ToolCall]) -> None:
        """Add the rows, and the partitions of months that have none yet."""
        for month in sorted({month_of(call.timestamp_ns) for call in calls}):
            self._make_partition(month)
        with _outages(), self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for call in calls:
                copy.write_row(to_row(call))

    def _make_partition(self, month: Month) -> None:
        """Create a table, and attach it: readers of the other months do not wait for that."""
        name = partition_of(month)
        if self._has(name):
            return
        self.execute(Query("select pg_advisory_xact_lock($lock)", {"lock": _LOCK}))
        if not self._has(name):
            self.execute(Query(f"create table {name} (like calls)"))
            bounds = f"from ({month.start_ns}) to ({month.end_ns})"
            self.execute(Query(f"alter table calls attach partition {name} for values {bounds}"))

    def _has(self, table: str) -> bool:
        """Reads the catalog's rows: `to_regclass` caches for a while that a table was missing."""
        query = "select 1 from pg_tables where schemaname = current_schema() and tablename = $table"
        return bool(self.rows(Query(query, {"table": table})))


def partition_of(month: Month) -> str:
    """The name of the table that has a month's calls: `calls_2026_11`."""
    return f"calls_{datetime.fromtimestamp(month.start_ns // 10**9, UTC):%Y_%m}"


def _is_over(name: str, now_ns: int) -> bool:
    try:
        begin = datetime.strptime(name, "calls_%Y_%m").replace(tzinfo=UTC)
    except ValueError:  # a table that somebody else has attached
        return False
    return month_of(int(begin.timestamp()) * 10**9).end_ns + DAY_NS < now_ns


def _is_empty(snapshot: PostgresSnapshot, table: str) -> bool:
    return not snapshot.rows(Query(f"select 1 from {table} limit 1"))


class PostgresLedger:
    """Connections to one database; the first that succeeds brings its schema to the newest version."""

    def __init__(
        self,
        url: str,
        *,
        query_seconds: float = QUERY_SECONDS,
        write_seconds: float = WRITE_SECONDS,
        grace_seconds: float = GRACE_SECONDS,
        connect_seconds: int = CONNECT_S,
        check_seconds: float = CHECK_S,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.fresh_as_of_ns: int | None = None
        self._pool = PostgresPool(url, prepare=self._prepare, connect_s=connect_seconds, check_s=check_seconds)
        self._query_seconds = query_seconds
        self._write_seconds = write_seconds
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._ready = False

    @classmethod
    def open(cls, url: str, **seconds: Any) -> "PostgresLedger":
        """The ledger, also while the server cannot be reached: then each query tries again.

        Raises:
            StartError: the server rejects us (password, database), or a newer Callscope has written the ledger.
        """
        ledger = cls(url, **seconds)
        ledger._pool.try_once()
        return ledger

    @contextlib.contextmanager
    def snapshot(self, *, seconds: float | None = None) -> Iterator[PostgresSnapshot]:
        with self._begun(_READ, self._query_seconds if seconds is None else seconds) as connection:
            yield PostgresSnapshot(connection)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[PostgresTransaction]:
        with self._begun(_WRITE, self._write_seconds) as connection:
            yield PostgresTransaction(connection)
            with _outages():
                connection.execute("commit")

    def reclaim(self, now_ns: int) -> bool:
        """Drop the partitions of months that were over a day ago and that retention has emptied.

        In the others, the server reuses the space of deleted rows by itself. False if one could not be locked at once.
        """
        with self.snapshot() as snapshot:
            over = [name for (name,) in snapshot.rows(_PARTITIONS) if _is_over(name, now_ns)]
            empty = [name for name in over if _is_empty(snapshot, name)]
        return all([self._drop(name) for name in empty])  # noqa: C419 - try each of them

    def _drop(self, name: str) -> bool:
        """Drop it if no reader holds the lock: readers have priority."""
        with self.transaction() as transaction:
            transaction.execute(Query("select pg_advisory_xact_lock($lock)", {"lock": _LOCK}))
            transaction.execute(Query(f"set local lock_timeout = {LOCK_MS}"))
            try:
                transaction.execute(Query("lock table calls in access exclusive mode"))
            except LedgerUnavailableError as error:
                if isinstance(error.__cause__, errors.LockNotAvailable):
                    return False
                raise
            if _is_empty(transaction, name):
                transaction.execute(Query(f"drop table {name}"))
        return True

    @contextlib.contextmanager
    def _begun(self, begin: str, seconds: float) -> Iterator[psycopg.Connection]:
        with self._pool.connection() as connection, cut_after(seconds + self._grace_seconds, connection):
            with _outages():
                connection.execute(_sql(f"{begin}; set local statement_timeout = {round(seconds * 1000)}"))
            try:
                yield connection
            finally:
                if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                    with contextlib.suppress(psycopg.Error):
                        connection.execute("rollback")

    def _prepare(self, connection: psycopg.Connection) -> None:
        """Migrate the schema, once in the life of this process."""
        with self._lock:
            if self._ready:
                return
            with cut_after(self._write_seconds, connection), connection.transaction():
                connection.execute("select pg_advisory_xact_lock(%s)", [_LOCK])
                migrate(PostgresTransaction(connection), now_ns=self._clock(), dialect="postgresql")
            self._ready = True

    def close(self) -> None:
        self._pool.close()


@contextlib.contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except OUTAGES as error:
        raise unavailable(error) from error
