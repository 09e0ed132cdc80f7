"""The live stream: a workspace's calls as they happen, as Server-Sent Events (HTML Living Standard, section 9.2).

Each connection reads the journal itself, from a place of its own, so that a slow client holds up nobody, and the `id:`
of an event is enough to go on from there, exactly, also with another observer.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.analytics.auth import Access, Authorizer
from gateway.analytics.negotiation import Endpoint, negotiate
from gateway.analytics.parameters import LIVE_PARAMETERS, MAX_LAST, Fields, parse
from gateway.analytics.refusals import ParameterError, unavailable
from gateway.analytics.views import view
from gateway.calls import ToolCall
from gateway.ledger.queries import COLUMN_OF
from gateway.observer.tail import Event, Tail

PATH: Final = "/api/community/mcp/workspaces/{workspace_id}/logs/stream"
MEDIA_TYPE: Final = "text/event-stream"
READING_THREADS: Final = 4
RETRY_AFTER_S: Final = 5
_HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
_RETRY: Final = b"retry: 1000\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """Times in seconds, sizes in bytes."""

    poll: float = 0.1
    keep_alive: float = 15.0
    longest: float = 3600.0
    """Then the stream ends, and the client that comes back shows its token again."""
    max_streams: int = 100
    max_behind: int = 8 * 2**20
    """How far a client that had once everything may fall behind before calls are skipped."""


class LiveStream:
    """The endpoint and its open streams; they end when `stop` is set."""

    def __init__(
        self,
        journal: Path,
        authorizer: Authorizer,
        *,
        stop: asyncio.Event,
        settings: LiveSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.streams = 0
        """How many are open now."""
        self._journal = journal
        self._authorizer = authorizer
        self._stop = stop
        self._settings = settings or LiveSettings()
        self._clock = clock
        self._threads = anyio.CapacityLimiter(READING_THREADS)

    def routes(self) -> list[Route]:
        """Where the stream is."""
        return [Route(PATH, Endpoint(self.respond))]

    async def respond(self, request: Request) -> Response:
        """The stream.

        Raises:
            RefusedError: there is none.
        """
        negotiate(request, MEDIA_TYPE)
        access = await self._authorizer.authorize(
            request.headers.get("authorization"), request.path_params["workspace_id"]
        )
        fields = Fields(request.query_params.multi_items(), LIVE_PARAMETERS)
        wanted, last = _wanted(access, fields), _last(fields)
        if request.method == "HEAD":
            return Response(headers=_HEADERS, media_type=MEDIA_TYPE)
        with contextlib.ExitStack() as slot:
            slot.callback(self._take_slot())
            tail, replayed = await anyio.to_thread.run_sync(
                self._place, wanted, last, request.headers.get("last-event-id"), limiter=self._threads
            )
            return _Stream(self._events(tail, replayed), slot.pop_all())

    def _take_slot(self) -> Callable[[], None]:
        """Count one stream more; what is returned counts it off."""
        if self.streams >= self._settings.max_streams:
            raise unavailable(f"{self.streams} live streams are open, no more fit", retry_after_s=RETRY_AFTER_S)
        self.streams += 1

        def give_back() -> None:
            self.streams -= 1

        return give_back

    def _place(
        self, wanted: Callable[[ToolCall], bool], last: int, last_event_id: str | None
    ) -> tuple[Tail, Sequence[Event]]:
        """Where the stream begins, and what comes before. The client's own place goes before `last`."""
        if last_event_id:
            try:
                return Tail.after(self._journal, wanted, last_event_id), ()
            except ValueError as error:
                raise ParameterError("Last-Event-ID", str(error)) from error
        tail = Tail.at_end(self._journal, wanted)
        return tail, tail.newest(last) if last else ()

    async def _events(self, tail: Tail, replayed: Sequence[Event]) -> AsyncIterator[bytes]:
        began = sent = self._clock()
        caught_up = False
        yield _RETRY + b"".join(map(_call, replayed)) + _place(tail)
        while not self._stop.is_set() and self._clock() - began < self._settings.longest:
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


def _wanted(access: Access, fields: Fields) -> Callable[[ToolCall], bool]:
    """Whether a call belongs to the stream: the workspace's, the bearer's if it is one member's, the filters'."""
    filters: Mapping[str, tuple[str, ...]] = {
        COLUMN_OF[dimension]: values
        for dimension, values in parse(fields, now_ns=time.time_ns()).filters.items()
        if values
    }

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
    return b"id: %s\nevent: call\ndata: %s\n\n" % (event.cursor.encode(), msgspec.json.encode(view(event.call)))


def _lag(skipped: int | None) -> bytes:
    """Calls are missing here; None if nobody can count them, because that part of the journal is gone."""
    return b"event: lag\ndata: %s\n\n" % msgspec.json.encode({"skipped": skipped})


def _place(tail: Tail) -> bytes:
    """The place alone: no event, but what the client will send as `Last-Event-ID`."""
    return b"id: %s\n\n" % tail.cursor.encode()
