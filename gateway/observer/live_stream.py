"""The live stream: a workspace's calls as they happen, as Server-Sent Events (HTML Living Standard, section 9.2).

Each connection reads the journal from a position of its own. So a slow client holds up nobody, and the `id:` of an
event is enough to go on exactly after it, also after a restart. Calls of other replicas are not in the stream.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.analytics.authorization import Access, Authorizer
from gateway.analytics.http_errors import (
    ApiError,
    ParameterError,
    ledger_errors,
    negotiate,
    routes_at,
    unavailable,
    without_length,
)
from gateway.analytics.models import CallSummary, StreamLag
from gateway.analytics.parameters import LIVE_PARAMETERS, MAX_LAST, Fields, parse
from gateway.analytics.query import (
    AnalyticsQuery,
    Catalog,
    check_ever_called,
    empty_catalog,
    unconfigured_names,
)
from gateway.calls import COLUMN_OF, ToolCall
from gateway.ledger import Ledger
from gateway.observer.journal_tail import JournalTail, LiveEvent

PATH: Final = "/api/community/mcp/workspaces/{workspace_id}/logs/stream"
MEDIA_TYPE: Final = "text/event-stream"
READING_THREADS: Final = 4
LEDGER_THREADS: Final = 4
"""For queries of the ledger, which may be away: they hold up no stream that is open."""
RETRY_AFTER_S: Final = 5
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RETRY: Final = b"retry: 1000\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """Times in seconds, sizes in bytes."""

    poll: float = 0.1
    keep_alive: float = 15.0
    """The bearer is authorized anew as often: the configuration may have changed."""
    longest: float = 3600.0
    """Then the stream ends, and the client that comes back authorizes itself again."""
    max_streams: int = 100
    max_behind: int = 8 * 2**20
    """How far a client that was up to date may fall behind before calls are skipped."""


class _Start(NamedTuple):
    """Where a stream starts, and what comes before."""

    tail: JournalTail
    replayed: Sequence[LiveEvent] = ()
    other_journal: bool = False
    """The client's position is one in another journal: nobody can count the calls that it missed."""


class LiveStream:
    """The endpoint and its open streams; they end when `stop` is set."""

    def __init__(
        self,
        journal: Path,
        authorizer: Authorizer,
        *,
        ledger: Ledger,
        stop: asyncio.Event,
        catalog: Catalog = empty_catalog,
        settings: LiveSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """`ledger` and `catalog` know the names that filters may have; bearers expire by `wall_clock`."""
        self.streams = 0
        """How many are open now."""
        self._journal = journal
        self._authorizer = authorizer
        self._ledger = ledger
        self._catalog = catalog
        self._stop = stop
        self._settings = settings or LiveSettings()
        self._clock = clock
        self._wall_clock = wall_clock
        self._threads = anyio.CapacityLimiter(READING_THREADS)
        self._ledger_threads = anyio.CapacityLimiter(LEDGER_THREADS)

    def routes(self) -> list[Route]:
        return routes_at(PATH, self.respond)

    async def respond(self, request: Request) -> Response:
        """The stream.

        Raises:
            ApiError: the request is rejected.
        """
        negotiate(request, MEDIA_TYPE)
        authorize = partial(
            self._authorizer.authorize, request.headers.get("authorization"), request.path_params["workspace_id"]
        )
        access = await authorize()
        now_ns = self._wall_clock()
        fields = Fields(request.query_params.multi_items(), LIVE_PARAMETERS)
        query = AnalyticsQuery(
            access=access,
            fields=fields,
            parameters=parse(fields, now_ns=now_ns),
            now_ns=now_ns,
            fresh_as_of_ns=None,
            catalog=self._catalog,
        )
        last = fields.integer("last", 0, MAX_LAST) or 0
        with contextlib.ExitStack() as slot:
            slot.enter_context(self._slot())
            await self._check_names(query)
            if request.method == "HEAD":
                return without_length(Response(headers=_HEADERS, media_type=MEDIA_TYPE))
            start = await anyio.to_thread.run_sync(
                self._start, _filter(query), last, request.headers.get("last-event-id"), limiter=self._threads
            )
            return _LiveResponse(self._events(start, access, authorize), slot.pop_all())

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        if self.streams >= self._settings.max_streams:
            raise unavailable(f"{self.streams} live streams are open, which is the limit", retry_after_s=RETRY_AFTER_S)
        self.streams += 1
        try:
            yield
        finally:
            self.streams -= 1

    async def _check_names(self, query: AnalyticsQuery) -> None:
        unconfigured = await anyio.to_thread.run_sync(unconfigured_names, query, limiter=self._threads)
        if unconfigured:
            with ledger_errors():
                await anyio.to_thread.run_sync(
                    check_ever_called, self._ledger, query, unconfigured, limiter=self._ledger_threads
                )

    def _start(self, wanted: Callable[[ToolCall], bool], last: int, last_event_id: str | None) -> _Start:
        """Where the stream starts. The client's own position overrides `last`."""
        if last_event_id:
            try:
                tail = JournalTail.after(self._journal, wanted, last_event_id)
            except ValueError as error:
                raise ParameterError("Last-Event-ID", str(error)) from error
            if tail is None:
                return _Start(JournalTail.at_end(self._journal, wanted), other_journal=True)
            return _Start(tail)
        tail = JournalTail.at_end(self._journal, wanted)
        return _Start(tail, tail.newest(last) if last else ())

    async def _events(
        self, start: _Start, access: Access, authorize: Callable[[], Awaitable[Access]]
    ) -> AsyncIterator[bytes]:
        tail, settings = start.tail, self._settings
        began = sent = authorized = self._clock()
        up_to_date = False
        lag = [_lag(None)] if start.other_journal else []
        yield b"".join([_RETRY, *lag, *map(_call, start.replayed), _position(tail)])
        while not self._stop.is_set() and self._clock() - began < settings.longest:
            if access.expires_s is not None and self._wall_clock() >= access.expires_s * 10**9:
                return
            if self._clock() - authorized >= settings.keep_alive:
                try:
                    access = await authorize()
                except ApiError:
                    return
                authorized = self._clock()
            read = await anyio.to_thread.run_sync(tail.poll, limiter=self._threads)
            blocks = [_lag(None)] if read.lost else []
            blocks += map(_call, read.events)
            if up_to_date and read.behind > settings.max_behind:
                skipped = await anyio.to_thread.run_sync(tail.skip, limiter=self._threads)
                blocks += [_lag(skipped), _position(tail)] if skipped else []
            elif not blocks and self._clock() - sent >= settings.keep_alive:
                blocks = [b": keep-alive\n" + _position(tail)]
            if blocks:
                yield b"".join(blocks)
                sent = self._clock()
            if read.behind == 0:
                up_to_date = True
                with anyio.move_on_after(settings.poll):
                    await self._stop.wait()


class _LiveResponse(StreamingResponse):
    """A stream that frees its slot, however it ends: its generator may never have been started."""

    def __init__(self, content: AsyncIterator[bytes], slot: contextlib.ExitStack) -> None:
        super().__init__(content, headers=_HEADERS, media_type=MEDIA_TYPE)
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slot:
            await super().__call__(scope, receive, send)


def _filter(query: AnalyticsQuery) -> Callable[[ToolCall], bool]:
    """Whether a call belongs to the stream, by the workspace, the bearer's member if it has one, and the filters."""
    access = query.access
    filters = {COLUMN_OF[dimension]: values for dimension, values in query.parameters.filters.items() if values}

    def wanted(call: ToolCall) -> bool:
        return (
            call.workspace_id == access.workspace_id
            and access.member in (None, call.token_id)
            and all(getattr(call, column) in values for column, values in filters.items())
        )

    return wanted


def _call(event: LiveEvent) -> bytes:
    return b"id: %s\nevent: call\ndata: %s\n\n" % (
        event.cursor.encode(),
        msgspec.json.encode(CallSummary.of(event.call)),
    )


def _lag(skipped: int | None) -> bytes:
    """Calls are missing here; None if nobody can count them because that part of the journal is gone."""
    return b"event: lag\ndata: %s\n\n" % msgspec.json.encode(StreamLag(skipped=skipped))


def _position(tail: JournalTail) -> bytes:
    """Not an event, only the position that the client will send as `Last-Event-ID`."""
    return b"id: %s\n\n" % tail.cursor.encode()
