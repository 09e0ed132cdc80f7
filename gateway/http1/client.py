"""A small HTTP/1.1 client on httptools, for what the relay does all day: POST, and read one response.

A connection carries one request at a time. Whatever is not clean (cut, malformed, more than was requested) closes it.
Nothing is ever sent twice here. Why it is our own: docs/adr/0002-upstream-http-client.md.
"""

import asyncio
import select
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

import httptools

from gateway.errors import CallscopeError

_FINAL: Final = 200
"""Statuses below it announce another response (RFC 9110, section 15.2)."""
_WITHOUT_BODY: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """How much an upstream may send, in bytes, and how long it may take, in seconds."""

    response_bytes: int = 64 * 2**20
    """Of a response that is read whole; a stream is bounded by its parser."""
    overhead_bytes: int = 2**18
    """Of what is no body, up to the next piece of body: heads, interim responses, chunk extensions, trailers."""
    buffered_bytes: int = 2**20
    """Of a stream whose reader is slower than the upstream; beyond it, reading pauses."""
    connect_s: float = 5.0
    """Shorter than a handshake or a listing may take: they then fail with the reason that no connection was made."""
    idle_s: float = 15.0
    """A kept connection that has rested longer is not used: servers close theirs, and a request must not meet that."""
    linger_s: float = 1.0
    """How long a stream may take to end after its last message; then its connection is closed."""


class ConnectionLostError(CallscopeError):
    """The upstream closed the connection before its response was whole; `began` says whether any of it had come."""

    def __init__(self, message: str, *, began: bool) -> None:
        super().__init__(message)
        self.began = began


class MalformedResponseError(CallscopeError):
    """The upstream sent no valid HTTP/1.1 response, or one that is too large."""


class HttpResponse:
    """The head of a response. `body` is whole, unless `streaming`: then the connection's `stream()` yields it."""

    __slots__ = ("body", "headers", "status", "streaming")

    def __init__(self, status: int, headers: dict[bytes, bytes], body: bytes, *, streaming: bool) -> None:
        self.status = status
        self.headers = headers
        """Names in lower case; of a repeated one the last."""
        self.body = body
        self.streaming = streaming

    @property
    def content_type(self) -> bytes:
        """The media type without its parameters, in lower case."""
        return self.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


class Connection(asyncio.Protocol):
    """One TCP or TLS connection; the parser is httptools', in C, and calls the `on_…` methods."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, closed: Callable[["Connection"], None], limits: ConnectionLimits
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._on_closed = closed
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._poll = select.poll()
        self._streaming = self._paused = self._complete = False
        self._until_eof = self._keep_alive = False
        self._headers: dict[bytes, bytes] = {}
        self._chunks: deque[bytes] = deque()
        self._received = self._overhead = 0
        self._more: asyncio.Future[None] | None = None
        self._failure: CallscopeError | None = None
        self._idle_since = 0.0
        self._after: Callable[[Connection], None] | None = None
        self._lingering: asyncio.TimerHandle | None = None
        self._max_idle = limits.idle_s
        self.closed = False
        self.used = False
        """Whether it has carried a request before the present one."""
        self.first_byte_ns = 0

    # -- what the pool and the caller use

    def send(self, request: bytes) -> asyncio.Future[HttpResponse]:
        """Write a whole request. The future is its response, of a stream the head alone."""
        self._streaming = self._complete = self._until_eof = False
        self._headers, self._received, self._overhead, self.first_byte_ns = {}, 0, 0, 0
        self._waiter = self._loop.create_future()
        if self._failure is None:
            self._transport.write(request)
        else:  # lost since it was made: nobody else would ever say so
            self._waiter.set_exception(ConnectionLostError(_lost(began=False), began=False))
        return self._waiter

    async def stream(self) -> AsyncIterator[bytes]:
        """The chunks of a streaming response's body, to its end.

        Raises:
            ConnectionLostError, MalformedResponseError: the stream ended in the middle.
        """
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._received -= len(chunk)
                if self._received < self._limits.buffered_bytes // 2:
                    self._resume()
                yield chunk
            if self._complete:
                return
            if self._failure is not None:
                raise self._failure
            self._more = self._loop.create_future()
            try:
                await self._more
            finally:
                self._more = None

    @property
    def reusable(self) -> bool:
        """Whether the last response ended cleanly and the upstream keeps the connection."""
        return self._complete and self._keep_alive and not self.closed

    def linger(self, done: Callable[["Connection"], None]) -> None:
        """Let a stream whose reader has finished come to its end, and call `done` then; at most for `linger_s`."""
        self._after = done
        self._lingering = self._loop.call_later(self._limits.linger_s, self.abort)
        self._chunks.clear()
        self._resume()

    @property
    def unfinished(self) -> bool:
        """Whether it carries a stream that has not ended."""
        return self._streaming and not self._complete and not self.closed

    def rest(self) -> None:
        self._idle_since = self._loop.time()
        self.used = True
        self._waiter = None
        self._chunks.clear()
        self._resume()

    def is_fresh(self) -> bool:
        """Whether it can be used again: not too old, and the upstream has neither closed it nor sent anything."""
        return not self.closed and self._loop.time() - self._idle_since < self._max_idle and not self._poll.poll(0)

    @property
    def lost(self) -> bool:
        """Whether it has failed, so that nothing will come over it any more."""
        return self._failure is not None

    def abort(self) -> None:
        """Close at once; over HTTP that is how a request is cancelled."""
        self.closed = True
        self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")  # noqa: S101 - uvloop's is its own class
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # the line above
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; data that answers no request closes the connection."""
        if self._waiter is None:
            self.abort()
            return
        if self.first_byte_ns == 0:
            self.first_byte_ns = time.perf_counter_ns()
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(MalformedResponseError(f"answered what is no HTTP/1.1: {error}"))
            self.abort()
        if self._overhead > self._limits.overhead_bytes:
            self._fail(MalformedResponseError(f"sent more than {self._limits.overhead_bytes} bytes that are no body"))
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """A response without a length ends here (RFC 9112, section 6.3); any other is cut."""
        self.closed = True
        if self._until_eof and exc is None and not self._complete:
            self.on_message_complete()
        began = self.first_byte_ns != 0
        self._fail(ConnectionLostError(_lost(began=began), began=began))
        self._on_closed(self)

    # -- httptools

    def on_message_begin(self) -> None:
        """A second response to one request closes the connection."""
        if self._complete:
            self.abort()
        self._headers = {}

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """An event stream is handed over as it comes."""
        status = self._parser.get_status_code()
        if status < _FINAL:
            return
        self._until_eof = (
            status not in _WITHOUT_BODY
            and b"content-length" not in self._headers
            and b"transfer-encoding" not in self._headers
        )
        keep_alive = self._headers.get(b"keep-alive", b"")
        if b"timeout=" in keep_alive:
            seconds = keep_alive.partition(b"timeout=")[2].partition(b",")[0].strip()
            if seconds.isdigit():
                self._max_idle = min(self._limits.idle_s, float(seconds) - 1)
        if self._headers.get(b"content-type", b"").lower().startswith(b"text/event-stream"):
            self._streaming = True
            self._respond(HttpResponse(status, self._headers, b"", streaming=True))

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, for the whole response or for the stream's reader."""
        self._overhead = 0
        if self._complete or self._after is not None:
            return
        self._chunks.append(body)
        self._received += len(body)
        if self._streaming:
            if self._received > self._limits.buffered_bytes and not self._paused:
                self._paused = True
                self._transport.pause_reading()
            self._wake()
        elif self._received > self._limits.response_bytes:
            self._fail(MalformedResponseError(f"answered with more than {self._limits.response_bytes} bytes"))
            self.abort()

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._complete or status < _FINAL:
            return
        self._complete = True
        self._keep_alive = not self._until_eof and self._parser.should_keep_alive()  # only here does the parser know
        if self._lingering is not None and self._after is not None:
            self._lingering.cancel()
            done, self._after, self._lingering = self._after, None, None
            done(self)
            return
        if self._streaming:
            self._wake()
            return
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._respond(HttpResponse(status, self._headers, body, streaming=False))

    def _respond(self, response: HttpResponse) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(response)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport.resume_reading()

    def _fail(self, failure: CallscopeError) -> None:
        failure = self._failure = self._failure or failure  # what comes after the first one follows from it
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(failure)
        self._wake()

    def _wake(self) -> None:
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


def _lost(*, began: bool) -> str:
    return f"closed the connection {'in the middle of its answer' if began else 'before it answered'}"
