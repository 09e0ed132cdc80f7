"""The range's calls as a file (CSV, JSON Lines, Parquet): oldest first, from one snapshot, a bounded part in memory.

A file has a flat row for each call, with the same columns in every format.
"""

import csv
import io
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
import anyio.to_thread
import msgspec
from anyio import CancelScope
from starlette.responses import StreamingResponse
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from gateway.analytics.http_errors import ParameterError, too_many
from gateway.analytics.parameters import Fields
from gateway.analytics.periods import NS, rfc3339
from gateway.analytics.query import AnalyticsQuery
from gateway.ledger import Snapshot, queries
from gateway.ledger.duckdb_driver import ParquetFile
from gateway.ledger.queries import Scope
from gateway.ledger.rows import COLUMNS

SECONDS: Final = 3600.0
"""An export that takes longer is cut off."""
CONCURRENT: Final = 2
RETRY_AFTER_S: Final = 10
MAX_ROWS: Final = 10**9
"""The most that `limit` can be; there is no limit by default."""
BATCH_ROWS: Final = 10_000
"""About; calls of one millisecond are not split."""
HEADER: Final = ("timestamp", *COLUMNS)
"""The call's begin for people (RFC 3339), then the ledger's columns."""

_HOUR_NS: Final = 3600 * NS
_FINEST_NS: Final = NS // 1000
_READ_BYTES: Final = 2**18
_TIMESTAMP_NS: Final = COLUMNS.index("timestamp_ns")

Rows = Sequence[tuple[Any, ...]]
"""In the order of `COLUMNS`."""


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
        writer.writerows((rfc3339(row[_TIMESTAMP_NS]), *row) for row in rows)
        yield buffer.getvalue().encode()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue().encode()


def _jsonl(batches: Iterable[Rows]) -> Iterator[bytes]:
    """An object a line; what is not known is null."""
    encoder = msgspec.json.Encoder()
    for rows in batches:
        yield encoder.encode_lines(
            [dict(zip(HEADER, (rfc3339(row[_TIMESTAMP_NS]), *row), strict=True)) for row in rows]
        )


def _parquet(batches: Iterable[Rows]) -> Iterator[bytes]:
    """Compressed by zstd. The file's end says where its parts are, so it is whole on disk before it is sent."""
    with tempfile.TemporaryDirectory(prefix="callscope-export-") as folder:
        path = Path(folder) / "calls.parquet"
        with ParquetFile(path) as parquet:
            for rows in batches:
                parquet.add(rows)
                yield b""  # nothing to send yet, but the server can notice that the client is gone
            parquet.write()
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk


FORMATS: Final[Mapping[str, Format]] = {
    "csv": Format("csv", "text/csv; charset=utf-8; header=present", _csv),
    "jsonl": Format("jsonl", "application/x-ndjson", _jsonl),
    "parquet": Format("parquet", "application/vnd.apache.parquet", _parquet),
}


def parse_format(fields: Fields) -> Format:
    """The parameter `format`; `ParameterError` if it is missing, or there is no such format."""
    name = fields.one("format", list(FORMATS))
    if name is None or name not in FORMATS:
        raise ParameterError("format", "is missing" if name is None else f"{name!r} is not a format", list(FORMATS))
    return FORMATS[name]


def file_name(query: AnalyticsQuery, file_format: Format) -> str:
    """A name that says which calls these are: `engineering-20261101T000000Z-20261123T141000Z.csv`."""
    begin, end = (rfc3339(ns)[:19].replace("-", "").replace(":", "") + "Z" for ns in query.range[:2])
    return f"{query.access.workspace_id}-{begin}-{end}.{file_format.name}"


def batches(snapshot: Snapshot, query: AnalyticsQuery, batch_rows: int) -> Iterator[Rows]:
    """The rows, as many as the request's limit allows."""
    left = query.parameters.limit
    for window in windows(snapshot, query.scope(), _HOUR_NS, batch_rows):
        rows = snapshot.rows(queries.oldest_first(window, limit=left))
        if left is not None:
            left -= len(rows)
        yield rows
        if left == 0:
            return


def windows(snapshot: Snapshot, scope: Scope, step_ns: int, batch_rows: int) -> Iterator[Scope]:
    """The scope in consecutive parts of about `batch_rows` calls each; parts without any are left out."""
    begin_ns, end_ns, calls = scope.from_ns, scope.from_ns, 0
    counts = snapshot.rows(queries.timeline(scope, None, origin_ns=scope.from_ns, step_ns=step_ns))
    for since_ns, _, found, _ in sorted(counts):
        bucket_ns = scope.from_ns + since_ns
        if calls and calls + found > batch_rows:
            yield replace(scope, from_ns=begin_ns, to_ns=end_ns)
            begin_ns, calls = bucket_ns, 0
        end_ns = min(bucket_ns + step_ns, scope.to_ns)
        if found > batch_rows and step_ns > _FINEST_NS:
            finer_ns = max(step_ns // 60, _FINEST_NS)
            yield from windows(snapshot, replace(scope, from_ns=bucket_ns, to_ns=end_ns), finer_ns, batch_rows)
            begin_ns = end_ns
        else:
            calls += found
    if calls:
        yield replace(scope, from_ns=begin_ns, to_ns=end_ns)


class Exports:
    """Starts exports: each holds a snapshot, so there are few at once."""

    def __init__(self, *, batch_rows: int) -> None:
        self._batch_rows = batch_rows
        self._threads = anyio.CapacityLimiter(CONCURRENT)
        self._running = 0

    async def start(
        self,
        opening: AbstractContextManager[Snapshot],
        query: AnalyticsQuery,
        file_format: Format,
        headers: Mapping[str, str],
    ) -> "Download":
        """Make the first part, so that what fails at once is an error, not a file that breaks off.

        Raises:
            ApiError: 429, no more may run.
            LedgerUnavailableError: the ledger is away.
        """
        if self._running >= CONCURRENT:
            raise too_many(
                f"{CONCURRENT} exports are running: try again when one has ended", retry_after_s=RETRY_AFTER_S
            )
        self._running += 1
        chunks = self._chunks(opening, query, file_format)
        try:
            return Download(self._parts(chunks, await self._next(chunks)), headers, partial(self._end, chunks))
        except BaseException:
            await self._end(chunks)
            raise

    def _chunks(
        self, opening: AbstractContextManager[Snapshot], query: AnalyticsQuery, file_format: Format
    ) -> Generator[bytes, None, None]:
        with opening as snapshot:
            yield from file_format.encode(batches(snapshot, query, self._batch_rows))

    async def _parts(self, chunks: Iterator[bytes], part: bytes | None) -> AsyncIterator[bytes]:
        while part is not None:
            yield part
            part = await self._next(chunks)

    async def _next(self, chunks: Iterator[bytes]) -> bytes | None:
        return await anyio.to_thread.run_sync(next, chunks, None, limiter=self._threads)

    async def _end(self, chunks: Generator[bytes, None, None]) -> None:
        """Let go of the snapshot, also while the request is being cancelled because its client is gone."""
        self._running -= 1
        with CancelScope(shield=True):
            await anyio.to_thread.run_sync(chunks.close, limiter=self._threads)


class Download(StreamingResponse):
    """Sends an export, and ends it however the sending ends."""

    def __init__(
        self, content: AsyncIterator[bytes], headers: Mapping[str, str], end: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(content, headers=headers)
        self._end = end

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._end()
