"""The live stream: a workspace's calls as they happen, as Server-Sent Events (HTML Living Standard, section 9.2).

Each connection reads the journal itself, from a place of its own, so that a slow client holds up nobody, and the `id:`
of an event is enough to go on from there, exactly, also after a restart. What other replicas relay is not there.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.analytics.accept import at, negotiate, without_length
from gateway.analytics.authorization import Access, Authorizer
from gateway.analytics.http_errors import ApiError, ParameterError, unavailable
from gateway.analytics.ledger_outage import ledger_errors
from gateway.analytics.models import CallSummary, StreamLag
from gateway.analytics.parameters import LIVE_PARAMETERS, MAX_LAST, Fields, parse
from gateway.analytics.query import (
    AnalyticsQuery,
    Catalog,
    UnconfiguredNames,
    check_ever_called,
    empty_catalog,
    unconfigured_names,
)
from gateway.calls import COLUMN_OF, ToolCall
from gateway.ledger import Ledger
from gateway.observer.journal_tail import Event, Tail

PATH: Final = "/api/community/mcp/workspaces/{workspace_id}/logs/stream"
MEDIA_TYPE: Final = "text/event-stream"
READING_THREADS: Final = 4
ASKING_THREADS: Final = 4
"""For questions to the ledger, which may be away: they hold up no stream that is open."""
RETRY_AFTER_S: Final = 5
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RETRY: Final = b"retry: 1000\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """Times in seconds, sizes in bytes."""

    poll: float = 0.1
    keep_alive: float = 15.0
    """So often, too, the bearer is looked at again: the configuration may have changed."""
    longest: float = 3600.0
    """Then the stream ends, and the client that comes back shows its token again."""
    max_streams: int = 100
    max_behind: int = 8 * 2**20
    """How far a client that had once everything may fall behind before calls are skipped."""


class _Beginning(NamedTuple):
    """Where a stream begins, and what comes before."""

    tail: Tail
    replayed: Sequence[Event] = ()
    elsewhere: bool = False
    """The client's place is one in another journal: what it has missed nobody can count."""


class _Bearer:
    """Whether the one who has opened a stream may still read it."""

    def __init__(self, authorizer: Authorizer, authorization: str | None, workspace_id: str) -> None:
        self._authorizer = authorizer
        self._authorization = authorization
        self._workspace_id = workspace_id
        self._expires_s: int | None = None

    async def access(self) -> Access:
        """What the bearer may see now.

        Raises:
            ApiError: nothing, or nobody can say.
        """
        access = await self._authorizer.authorize(self._authorization, self._workspace_id)
        self._expires_s = access.expires_s
        return access

    def expired(self, now_ns: int) -> bool:
        """Whether the bearer's own time is over; `now_ns` are nanoseconds since the Unix epoch."""
        return self._expires_s is not None and now_ns >= self._expires_s * 10**9

    async def may_go_on(self) -> bool:
        """Whether the bearer is still good by the configuration of now."""
        try:
            await self.access()
        except ApiError:
            return False
        return True


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
        """`ledger` and `catalog` know the names that filters may have; `wall_clock` says when a bearer expires."""
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
        self._asking = anyio.CapacityLimiter(ASKING_THREADS)

    def routes(self) -> list[Route]:
        """Where the stream is."""
        return at(PATH, self.respond)

    async def respond(self, request: Request) -> Response:
        """The stream.

        Raises:
            ApiError: there is none.
        """
        negotiate(request, MEDIA_TYPE)
        authorization, workspace_id = request.headers.get("authorization"), request.path_params["workspace_id"]
        bearer = _Bearer(self._authorizer, authorization, workspace_id)
        query = self._question(await bearer.access(), request)
        last = _last(query.fields)
        with contextlib.ExitStack() as slot:
            slot.callback(self._take_slot())
            unconfigured = await anyio.to_thread.run_sync(unconfigured_names, query, limiter=self._threads)
            if unconfigured:
                await anyio.to_thread.run_sync(self._check_called, query, unconfigured, limiter=self._asking)
            if request.method == "HEAD":
                return without_length(Response(headers=_HEADERS, media_type=MEDIA_TYPE))
            beginning = await anyio.to_thread.run_sync(
                self._place, _wanted(query), last, request.headers.get("last-event-id"), limiter=self._threads
            )
            return _Stream(self._events(beginning, bearer), slot.pop_all())

    def _question(self, access: Access, request: Request) -> AnalyticsQuery:
        now_ns = self._wall_clock()
        fields = Fields(request.query_params.multi_items(), LIVE_PARAMETERS)
        return AnalyticsQuery(
            access=access,
            fields=fields,
            parameters=parse(fields, now_ns=now_ns),
            now_ns=now_ns,
            fresh_as_of_ns=None,
            catalog=self._catalog,
        )

    def _check_called(self, query: AnalyticsQuery, unconfigured: UnconfiguredNames) -> None:
        with ledger_errors():
            check_ever_called(self._ledger, query, unconfigured)

    def _take_slot(self) -> Callable[[], None]:
        """Count one stream more; what is returned counts it off."""
        if self.streams >= self._settings.max_streams:
            raise unavailable(f"{self.streams} live streams are open, no more fit", retry_after_s=RETRY_AFTER_S)
        self.streams += 1

        def give_back() -> None:
            self.streams -= 1

        return give_back

    def _place(self, wanted: Callable[[ToolCall], bool], last: int, last_event_id: str | None) -> _Beginning:
        """Where the stream begins. The client's own place goes before `last`."""
        if last_event_id:
            try:
                tail = Tail.after(self._journal, wanted, last_event_id)
            except ValueError as error:
                raise ParameterError("Last-Event-ID", str(error)) from error
            if tail is None:
                return _Beginning(Tail.at_end(self._journal, wanted), elsewhere=True)
            return _Beginning(tail)
        tail = Tail.at_end(self._journal, wanted)
        return _Beginning(tail, tail.newest(last) if last else ())

    async def _events(self, beginning: _Beginning, bearer: _Bearer) -> AsyncIterator[bytes]:
        tail = beginning.tail
        began = sent = looked_at = self._clock()
        caught_up = False
        yield b"".join(
            [_RETRY, _lag(None) if beginning.elsewhere else b"", *map(_call, beginning.replayed), _place(tail)]
        )
        while not self._stop.is_set() and self._clock() - began < self._settings.longest:
            if bearer.expired(self._wall_clock()):
                return
            if self._clock() - looked_at >= self._settings.keep_alive:
                if not await bearer.may_go_on():
                    return
                looked_at = self._clock()
            found = await anyio.to_thread.run_sync(tail.poll, limiter=self._threads)
            blocks = [_lag(None)] if found.lost else []
            blocks += map(_call, found.events)
            if caught_up and found.behind > self._settings.max_behind:
                skipped = await anyio.to_thread.run_sync(tail.skip, limiter=self._threads)
                blocks += [_lag(skipped), _place(tail)] if skipped else []
            elif not blocks and self._clock() - sent >= self._settings.keep_alive:
                blocks = [b": keep-alive\n" + _place(tail)]
            if blocks:
                yield b"".join(blocks)
                sent = self._clock()
            if found.behind == 0:
                caught_up = True
                with anyio.move_on_after(self._settings.poll):
                    await self._stop.wait()


class _Stream(StreamingResponse):
    """A stream that gives its slot back, however it ends."""

    def __init__(self, content: AsyncIterator[bytes], slot: contextlib.ExitStack) -> None:
        super().__init__(content, headers=_HEADERS, media_type=MEDIA_TYPE)
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._slot:
            await super().__call__(scope, receive, send)


def _wanted(query: AnalyticsQuery) -> Callable[[ToolCall], bool]:
    """Whether a call belongs to the stream: the workspace's, the bearer's if it is one member's, the filters'."""
    access = query.access
    filters = {COLUMN_OF[dimension]: values for dimension, values in query.parameters.filters.items() if values}

    def wanted(call: ToolCall) -> bool:
        return (
            call.workspace_id == access.workspace_id
            and access.member in (None, call.token_id)
            and all(getattr(call, column) in values for column, values in filters.items())
        )

    return wanted


def _last(fields: Fields) -> int:
    allowed = f"0..{MAX_LAST}"
    text = fields.one("last", [allowed]) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_LAST)) and int(text) <= MAX_LAST):
        raise ParameterError("last", f"{text!r} is no whole number from 0 to {MAX_LAST}", [allowed])
    return int(text)


def _call(event: Event) -> bytes:
    return b"id: %s\nevent: call\ndata: %s\n\n" % (
        event.cursor.encode(),
        msgspec.json.encode(CallSummary.of(event.call)),
    )


def _lag(skipped: int | None) -> bytes:
    """Calls are missing here; None if nobody can count them, because that part of the journal is gone."""
    return b"event: lag\ndata: %s\n\n" % msgspec.json.encode(StreamLag(skipped=skipped))


def _place(tail: Tail) -> bytes:
    """The place alone: no event, but what the client will send as `Last-Event-ID`."""
    return b"id: %s\n\n" % tail.cursor.encode()
