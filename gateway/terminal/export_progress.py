"""How many calls an export has, counted as it goes by."""

from pathlib import Path
from typing import Protocol

from gateway.errors import CallscopeError


class RowCounter(Protocol):
    """Sees every chunk of an export."""

    def see(self, chunk: bytes) -> None:
        """Take the next chunk."""

    def total(self, file: Path | None) -> int | None:
        """How many rows there were; None if that cannot be known without a file."""


class JsonLinesCounter:
    """A line a call."""

    def __init__(self) -> None:
        self._lines = 0

    def see(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self._lines += chunk.count(b"\n")

    def total(self, _file: Path | None) -> int:
        """The lines."""
        return self._lines


class CsvCounter:
    """A line a call, after that of the names (RFC 4180): line breaks between quotes end no line."""

    def __init__(self) -> None:
        self._lines = 0
        self._quoted = False

    def see(self, chunk: bytes) -> None:
        """Take the next chunk; a doubled quote opens again what it closed."""
        first, *others = chunk.split(b'"')
        for i, part in enumerate((first, *others)):
            self._quoted ^= i > 0
            self._lines += 0 if self._quoted else part.count(b"\n")

    def total(self, _file: Path | None) -> int:
        """The lines without the first."""
        return max(self._lines - 1, 0)


class ParquetCounter:
    """Its footer says it, at the very end."""

    def see(self, chunk: bytes) -> None:
        """Nothing can be told from the middle of it."""

    def total(self, file: Path | None) -> int | None:
        """What the footer of a complete file says.

        Raises:
            CallscopeError: it is no complete Parquet file.
        """
        import duckdb  # noqa: PLC0415 - no other command needs it, and it takes long to import

        if file is None:
            return None
        try:
            with duckdb.connect(":memory:") as database:
                [(rows,)] = database.execute("select num_rows from parquet_file_metadata($1)", [str(file)]).fetchall()
        except duckdb.Error as error:
            raise CallscopeError(f"what the observer sent is no complete Parquet file: {error}") from error
        return int(rows)
