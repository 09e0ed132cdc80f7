"""The ledger in DuckDB: one file, one process, many reading threads."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self, get_args

import duckdb
import msgspec

from gateway.calls import PHASES, ToolCall
from gateway.errors import LedgerUnavailableError, StartError
from gateway.ledger.driver import QueryTimeoutError, Snapshot, Transaction
from gateway.ledger.queries import Query
from gateway.ledger.rows import COLUMNS, FIELDS, encode, to_call
from gateway.ledger.schema import MIGRATIONS, migrate

QUERY_SECONDS: Final = 30.0
"""A snapshot that is open for longer is interrupted."""
CHECKPOINTS: Final = 10
CHECKPOINT_PAUSE_S: Final = 0.05
"""A writer takes some hundredths of a second."""


def _json_type(annotation: object) -> str:
    members = {annotation, *get_args(annotation)}
    return "DOUBLE" if float in members else "BIGINT" if int in members else "VARCHAR"


def _json_structure() -> str:
    fields = [f'"{field.name}":"{_json_type(field.type)}"' for field in FIELDS]
    phases = [f'"{phase}":"DOUBLE"' for phase in PHASES]
    return f'{{{",".join(fields)},"phases":{{{",".join(phases)}}}}}'


def _insert_statement() -> str:
    """Rows travel as JSON, as the journal writes them: a third of the cost of one list for each column.

    A field that has its default value is not in the JSON.
    """
    fields = [
        f"coalesce(c.{field.name}, {_literal(field.default)})"
        if field.default not in (None, msgspec.NODEFAULT)
        else f"c.{field.name}"
        for field in FIELDS
    ]
    phases = [f"coalesce(c.phases.{phase}, 0.0)" for phase in PHASES]
    return (
        f"insert into calls ({', '.join(COLUMNS)}) select {', '.join([*fields, *phases])} "
        f"from (select from_json(unnest($rows), '{_json_structure()}') as c)"
    )


def _literal(default: object) -> str:
    return f"'{default}'" if isinstance(default, str) else str(default)


_INSERT: Final = _insert_statement()

_OUTAGES: Final = (
    duckdb.OperationalError,
    duckdb.InternalError,
    duckdb.FatalException,
    duckdb.InterruptException,
    duckdb.PermissionException,
)
"""Errors of the file, the disk or the memory; any other error of DuckDB is a defect of ours, and is raised."""


class DuckSnapshot(Snapshot):
    """Reads through a cursor of its own, inside a transaction."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        self._cursor = cursor

    def rows(self, query: Query) -> list[tuple[Any, ...]]:
        with _outages():
            return self._cursor.execute(query.sql, dict(query.parameters)).fetchall()


class DuckTransaction(DuckSnapshot, Transaction):
    """Reads and writes through a cursor of its own."""

    def claim(self, journal_id: str) -> None:
        """Nothing to wait for: there is one process, and if its commit has failed, it is over."""

    def write(self, calls: Sequence[ToolCall]) -> None:
        with _outages():
            insert(self._cursor, calls)


def insert(connection: duckdb.DuckDBPyConnection, calls: Sequence[ToolCall]) -> None:
    """Add a row for each call to the table `calls` of any DuckDB database."""
    connection.execute(_INSERT, {"rows": [encode(call).decode() for call in calls]})


class DuckLedger:
    """The open file. Snapshots may be taken from any thread while one other thread writes.

    DuckDB gives a database up after some failures, a disk that is full during a checkpoint among them. What was
    committed is safe in the file, so the ledger opens it anew for the next reader or writer.
    """

    def __init__(
        self, connect: Callable[[], duckdb.DuckDBPyConnection], *, query_seconds: float = QUERY_SECONDS
    ) -> None:
        self._connect = connect
        self._query_seconds = query_seconds
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = connect()
        self._closed = False
        self.fresh_as_of_ns: int | None = None

    @classmethod
    def open(
        cls, path: Path, *, query_seconds: float = QUERY_SECONDS, clock: Callable[[], int] = time.time_ns
    ) -> "DuckLedger":
        """Open the file, or make it; replay what a killed process left in its write-ahead log; migrate.

        Raises:
            StartError: another process has it open, it is no ledger, or a newer Callscope wrote it.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            ledger = cls(lambda: _connect(path), query_seconds=query_seconds)
        except duckdb.Error as error:
            raise StartError(
                f"{path}: cannot be opened as the ledger: {error}; one process at a time may have it, "
                "so end the other one, or set another data_dir"
            ) from error
        try:
            with ledger.transaction() as transaction:
                migrate(transaction, now_ns=clock())
        except (StartError, LedgerUnavailableError) as error:
            ledger.close()
            raise StartError(f"{path}: {error}") from error
        return ledger

    @contextlib.contextmanager
    def snapshot(self, *, seconds: float | None = None) -> Iterator[DuckSnapshot]:
        with self._begun() as cursor:
            watchdog = threading.Timer(self._query_seconds if seconds is None else seconds, cursor.interrupt)
            watchdog.daemon = True
            watchdog.start()
            try:
                yield DuckSnapshot(cursor)
            finally:
                watchdog.cancel()
                watchdog.join()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[DuckTransaction]:
        with self._begun() as cursor:
            yield DuckTransaction(cursor)
            with _outages():
                cursor.commit()

    def reclaim(self, now_ns: int) -> bool:  # noqa: ARG002 - the interface's
        """Checkpoint the file: without one of its own it would grow for ever. Writers wait meanwhile."""
        for _ in range(CHECKPOINTS):
            with self._cursor() as cursor, _outages():
                try:
                    cursor.execute("checkpoint")
                except duckdb.TransactionException:  # "there are other write transactions active"
                    time.sleep(CHECKPOINT_PAUSE_S)
                else:
                    return True
        return False

    @contextlib.contextmanager
    def _begun(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with self._cursor() as cursor:
            with _outages():  # of the ledger only: the block may raise other errors of DuckDB's
                cursor.begin()
            yield cursor

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        cursor = None
        try:
            cursor = self._new_cursor()
            yield cursor
        except LedgerUnavailableError as error:
            if isinstance(error.__cause__, duckdb.FatalException):
                self._disconnect()
            raise
        finally:
            if cursor is not None:
                cursor.close()

    def _new_cursor(self) -> duckdb.DuckDBPyConnection:
        with self._lock, _outages():
            if self._closed:
                raise LedgerUnavailableError("the ledger is closed")
            if self._connection is None:
                self._connection = self._connect()
            return self._connection.cursor()

    def _disconnect(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def close(self) -> None:
        self._closed = True
        self._disconnect()


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(path), config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})


@contextlib.contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException as error:
        raise QueryTimeoutError from error
    except _OUTAGES as error:
        raise LedgerUnavailableError(f"the ledger does not answer: {error}") from error


class ParquetFile:
    """A Parquet file, written by a temporary DuckDB database beside it. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        limits: dict[str, str | bool | int | float | list[str]] = {"memory_limit": "512MB", "threads": 1}
        self._connection = duckdb.connect(str(path.with_suffix(".duckdb")), config=limits)
        self._connection.execute(MIGRATIONS[0][0].of("duckdb"))  # the table `calls`

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Append rows in the order of `COLUMNS`."""
        if rows:
            insert(self._connection, [to_call(row) for row in rows])

    def write(self) -> None:
        """Write all rows in the order in which they came; `timestamp` is the call's begin in UTC, to the microsecond.

        Nanoseconds are a type that many readers of Parquet do not know.
        """
        # S608: names of columns, and a path that we have made
        self._connection.execute(
            f"copy (select make_timestamptz(timestamp_ns // 1000) as timestamp, {', '.join(COLUMNS)} from calls) "
            f"to '{self._path}' (format parquet, compression zstd)"
        )
