"""The files that an export may be: CSV, JSON Lines, Parquet. A flat row for each call, the same columns in all."""

import csv
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from gateway.analytics.periods import rfc3339
from gateway.ledger.parquet import ParquetWriter
from gateway.ledger.rows import COLUMNS

Rows = Sequence[tuple[Any, ...]]
"""In the order of `COLUMNS`."""

HEADER: Final = ("timestamp", *COLUMNS)
"""The call's begin for people (RFC 3339), then what the ledger has."""

_READ_BYTES: Final = 2**18
_AT: Final = COLUMNS.index("timestamp_ns")


class Format(NamedTuple):
    """How rows become bytes."""

    name: str
    media_type: str
    encode: Callable[[Iterable[Rows]], Iterator[bytes]]


def _csv(batches: Iterable[Rows]) -> Iterator[bytes]:
    """RFC 4180, with a header; what is not known is an empty field."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(HEADER)
    for rows in batches:
        writer.writerows((rfc3339(row[_AT]), *row) for row in rows)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def _jsonl(batches: Iterable[Rows]) -> Iterator[bytes]:
    """An object a line; what is not known is null."""
    encoder = msgspec.json.Encoder()
    for rows in batches:
        yield encoder.encode_lines([dict(zip(HEADER, (rfc3339(row[_AT]), *row), strict=True)) for row in rows])


def _parquet(batches: Iterable[Rows]) -> Iterator[bytes]:
    """Compressed by zstd. The file's end says where its parts are, so it is whole on disk before it is sent."""
    with tempfile.TemporaryDirectory(prefix="callscope-export-") as folder:
        path = Path(folder) / "calls.parquet"
        with ParquetWriter(Path(folder) / "calls.duckdb") as spool:
            for rows in batches:
                spool.add(rows)
                yield b""  # nothing to send yet, but a time to hear that the client has gone
            spool.write_parquet(path)
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk


FORMATS: Final[Mapping[str, Format]] = {
    "csv": Format("csv", "text/csv; charset=utf-8; header=present", _csv),
    "jsonl": Format("jsonl", "application/x-ndjson", _jsonl),
    "parquet": Format("parquet", "application/vnd.apache.parquet", _parquet),
}
