"""The range's calls as a file, oldest first, out of one snapshot and with a bounded part of them in memory."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Final, Self

import anyio
import anyio.to_thread
from anyio import CancelScope
from starlette.responses import StreamingResponse
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from gateway.analytics.export_formats import FORMATS, Format, Rows
from gateway.analytics.http_errors import ApiError, ParameterError
from gateway.analytics.parameters import Fields
from gateway.analytics.periods import NS, rfc3339
from gateway.analytics.query import AnalyticsQuery
from gateway.ledger import Snapshot, queries
from gateway.ledger.queries import Scope

SECONDS: Final = 3600.0
"""An export that takes longer is cut off."""
AT_ONCE: Final = 2
RETRY_AFTER_S: Final = 10
MAX_ROWS: Final = 10**9
"""The most that `limit` can be; there is none if it is not given."""
ROWS: Final = 10_000
"""Of one batch, about: calls of one millisecond are not split."""
_HOUR_NS: Final = 3600 * NS
_FINEST_NS: Final = NS // 1000


def parse_format(fields: Fields) -> Format:
    """The parameter `format`.

    Raises:
        ParameterError: it is missing, or there is no such format.
    """
    name = fields.one("format", list(FORMATS))
    if name is None:
        raise ParameterError("format", "is missing", list(FORMATS))
    if name not in FORMATS:
        raise ParameterError("format", f"{name!r} is no format here", list(FORMATS))
    return FORMATS[name]


def file_name(query: AnalyticsQuery, file_format: Format) -> str:
    """A name that says which calls these are: `engineering-20261101T000000Z-20261123T141000Z.csv`."""
    span = query.range
    begin, end = (rfc3339(ns)[:19].replace("-", "").replace(":", "") + "Z" for ns in (span.from_ns, span.to_ns))
    return f"{query.access.workspace_id}-{begin}-{end}.{file_format.name}"


def batches(snapshot: Snapshot, query: AnalyticsQuery) -> Iterator[Rows]:
    """The rows, as many as the question's limit lets through."""
    left = query.parameters.limit
    for window in windows(snapshot, query.scope(), _HOUR_NS):
        rows = snapshot.rows(queries.oldest_first(window, limit=left))
        if left is not None:
            left -= len(rows)
        yield rows
        if left == 0:
            return


def windows(snapshot: Snapshot, scope: Scope, step_ns: int) -> Iterator[Scope]:
    """The scope in parts that follow each other, of about `ROWS` calls each; parts without any are left out."""
    begin_ns, end_ns, calls = scope.from_ns, scope.from_ns, 0
    counts = snapshot.rows(queries.timeline(scope, None, origin_ns=scope.from_ns, step_ns=step_ns))
    for since_ns, _, found, _ in sorted(counts):
        bucket_ns = scope.from_ns + since_ns
        if calls and calls + found > ROWS:
            yield replace(scope, from_ns=begin_ns, to_ns=end_ns)
            begin_ns, calls = bucket_ns, 0
        end_ns = min(bucket_ns + step_ns, scope.to_ns)
        if found > ROWS and step_ns > _FINEST_NS:
            yield from windows(
                snapshot, replace(scope, from_ns=bucket_ns, to_ns=end_ns), max(step_ns // 60, _FINEST_NS)
            )
            begin_ns = end_ns
        else:
            calls += found
    if calls:
        yield replace(scope, from_ns=begin_ns, to_ns=end_ns)


class Exports:
    """Those that run: each holds a snapshot, and there are few at once."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(AT_ONCE)
        self._running = 0

    async def begin(
        self, opening: AbstractContextManager[Snapshot], query: AnalyticsQuery, file_format: Format
    ) -> "ExportRun":
        """Begin one: the first bytes are there already, so that what fails at once is no file that breaks off.

        Raises:
            ApiError: 429, as many as may run do.
            LedgerUnavailableError: the ledger is away.
        """
        if self._running >= AT_ONCE:
            raise ApiError(
                429,
                f"{AT_ONCE} exports run already: try again when one has ended",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self._running += 1
        running = ExportRun(_chunks(opening, query, file_format), self._threads, self._ended)
        try:
            await running.begin()
        except BaseException:
            await running.end()
            raise
        return running

    def _ended(self) -> None:
        self._running -= 1


class ExportRun:
    """One export: the file's bytes, a part at a time. It must be ended, also where nobody asks for any of them."""

    def __init__(
        self, chunks: Generator[bytes, None, None], threads: anyio.CapacityLimiter, ended: Callable[[], None]
    ) -> None:
        self._chunks = chunks
        self._threads = threads
        self._ended = ended
        self._first: bytes | None = None

    async def begin(self) -> None:
        """Have the first part made.

        Raises:
            LedgerUnavailableError: the ledger is away.
        """
        self._first = await self._part()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next part.

        Raises:
            LedgerUnavailableError: the ledger is away.
        """
        part = await self._part() if self._first is None else self._first
        self._first = None
        if part is None:
            raise StopAsyncIteration
        return part

    async def end(self) -> None:
        """Let go of the snapshot, also where the client has gone, which is told by cancelling."""
        self._ended()
        with CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._chunks.close, limiter=self._threads)

    async def _part(self) -> bytes | None:
        return await anyio.to_thread.run_sync(next, self._chunks, None, limiter=self._threads)


class Download(StreamingResponse):
    """A file that is sent; however that ends, its snapshot does."""

    def __init__(self, content: ExportRun, headers: Mapping[str, str]) -> None:
        super().__init__(content, headers=headers)
        self._content = content

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._content.end()


def _chunks(
    opening: AbstractContextManager[Snapshot], query: AnalyticsQuery, file_format: Format
) -> Generator[bytes, None, None]:
    with opening as snapshot:
        yield from file_format.encode(batches(snapshot, query))
