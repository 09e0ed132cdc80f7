"""Rows of any ledger in a DuckDB file of their own, which can write them as Parquet."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

import duckdb

from gateway.ledger.duckdb_driver import insert
from gateway.ledger.rows import COLUMNS, to_call
from gateway.ledger.schema import MIGRATIONS

_TABLE: Final = MIGRATIONS[0][0]


class ParquetWriter:
    """A context manager; its file goes with the folder in which it is."""

    def __init__(self, path: Path) -> None:
        self._connection = duckdb.connect(str(path), config={"memory_limit": "512MB", "threads": 1})
        self._connection.execute(_TABLE.of("duckdb"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows in the order of `COLUMNS`, behind those that are there."""
        insert(self._connection, [to_call(row) for row in rows])

    def write_parquet(self, path: Path) -> None:
        """All rows in the order in which they came; `timestamp` is the call's begin, to the microsecond.

        Its type says that it is in UTC, as readers know it; nanoseconds are a type that many of them do not.
        """
        columns = ", ".join(COLUMNS)
        # S608: names of columns, and a path that we have made
        self._connection.execute(
            f"copy (select make_timestamptz(timestamp_ns // 1000) as timestamp, {columns} from calls) "  # noqa: S608
            f"to '{path}' (format parquet, compression zstd)"
        )
