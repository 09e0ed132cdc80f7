"""HTTP/1.1 for uvicorn, on httptools: `uvicorn.Config(http=HttpProtocol)` (docs/adr/0003-http-protocol.md).

Its law: the plain way (a request in one segment, an answer in two messages) is one read, one task and one write, and
sets no timer. What is rare stands beside it in methods of its own. One request is parsed at a time: what follows it
waits as bytes, with reading paused, until it is answered.
"""

import asyncio
import math
from typing import Any, ClassVar, Final

import httptools
import uvicorn
from uvicorn.server import ServerState

from gateway.http1 import request_head
from gateway.http1.request_head import CHUNKED, Heads, Origin, Refusal
from gateway.http1.request_response_cycle import STATUS_LINES, RequestResponseCycle

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_UNREAD_BYTES: Final = 64 * 1024
"""So much of a body waits for the application before reading is paused."""

_END: Final = b"\r\n\r\n"
_CR: Final = 13


class HttpProtocol(asyncio.Protocol):
    """One connection, as uvicorn makes it. The limits in seconds are a subclass's to change."""

    head_seconds: ClassVar[float] = 30.0
    """From a request's first byte to the end of its head."""
    body_seconds: ClassVar[float] = 75.0
    """Between two pieces of a body for which the application waits; and to read what fills the buffers."""
    linger_seconds: ClassVar[float] = 10.0
    """From the last answer to the end of a connection that its client does not close."""
    sweep_seconds: ClassVar[float] = 1.0
    """How often a connection looks at its deadline: once for all requests of the time between."""

    __slots__ = (
        "_active",
        "_app",
        "_app_state",
        "_buffer",
        "_common",
        "_deadline",
        "_deaf",
        "_defaults",
        "_heads",
        "_keep_alive_seconds",
        "_left",
        "_loop",
        "_parser",
        "_paused",
        "_root_path",
        "_state",
        "_timer",
        "transport",
        "writable",
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._app = config.loaded_app
        self._root_path = config.root_path
        self._keep_alive_seconds = config.timeout_keep_alive
        self._state = server_state
        self._app_state = app_state
        self._loop = _loop or asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._active: RequestResponseCycle | None = None  # the request that is being answered
        self._left = 0  # bytes that its body still has, or CHUNKED
        self._buffer = b""  # what has come after it
        self._deaf = False  # nothing of what comes is read any more
        self._paused = False
        self._defaults: list[tuple[bytes, bytes]] = []
        self._common = b""
        self.writable: asyncio.Event | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the client has as long for its first request as for the next ones."""
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's is a class of its own
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own protocols only
        peer, here = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        origin = Origin(
            scheme="https" if transport.get_extra_info("sslcontext") else "http",
            client=peer[:2] if isinstance(peer, tuple) else None,
            server=here[:2] if isinstance(here, tuple) else (here, None),
            root_path=self._root_path,
            state=self._app_state,
        )
        self._heads = Heads(origin)
        self._deadline = self._loop.time() + self._keep_alive_seconds
        self._timer = self._loop.call_later(min(self.sweep_seconds, self._keep_alive_seconds), self._sweep)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The client is gone, and with it who was to be answered."""
        self._state.connections.discard(self)
        self._timer.cancel()
        self._deaf = True
        if self._active is not None:
            self._active.disconnect()
        self.resume_writing()
        del self._parser  # it holds this connection's methods

    def data_received(self, data: bytes) -> None:
        """Take the next request, or what belongs to the one that is being answered."""
        if self._deaf:
            return
        if self._active is not None:
            self._continue(self._active, data)
            return
        if self._buffer:
            data = self._buffer + data
        self._take(data)

    def eof_received(self) -> None:
        """A client that ends its half has gone: most do so only then, and calls must not go on for nobody."""

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """It has read."""
        if self.writable is not None:
            self.writable.set()
            self.writable = None

    # -- uvicorn

    def shutdown(self) -> None:
        """Close as soon as the request that is being answered has its answer."""
        if self._active is None:
            self._close()
        else:
            self._active.keep_alive = False

    # -- httptools: the body alone; heads are sliced, and the parser judges them

    def on_message_begin(self) -> None:
        """A second message in one piece of data can only follow chunks, whose end is not known beforehand."""
        exchange = self._active
        if exchange is not None and exchange.received:
            exchange.keep_alive = False  # its client has to send again what followed (RFC 9112, section 9.3.2)

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        exchange = self._active
        if exchange is not None and not exchange.received:
            exchange.feed(body)

    def on_message_complete(self) -> None:
        """The request is complete."""
        exchange = self._active
        if exchange is not None:
            exchange.received = True
            exchange.wake()

    # -- the exchanges' side

    def common(self) -> bytes:
        """The header lines of every answer: Date, which uvicorn renews every second (RFC 9110, section 6.6.1)."""
        defaults = self._state.default_headers
        if defaults is not self._defaults:
            self._defaults = defaults
            self._common = b"".join(b"%b: %b\r\n" % line for line in defaults)
        return self._common

    def ask(self, exchange: RequestResponseCycle) -> None:
        """The application waits: for more of the body, if there is more."""
        if exchange is self._active and not exchange.received:
            self._resume_reading()
            self._deadline = self._loop.time() + self.body_seconds

    async def drain(self, writable: asyncio.Event) -> None:
        """The application waits until its client has read."""
        self._deadline = self._loop.time() + self.body_seconds
        await writable.wait()
        self._deadline = math.inf

    def finished(self, exchange: RequestResponseCycle) -> None:
        """The answer is written: on to the next request, or to the end."""
        self._state.total_requests += 1
        if exchange is not self._active:
            return
        self._active = None
        if exchange.keep_alive and exchange.received:
            self._deadline = self._loop.time() + self._keep_alive_seconds
            if self._buffer:
                data, self._buffer = self._buffer, b""
                self._take(data)
                if self._active is None or not self._buffer:
                    self._resume_reading()
        elif exchange.received and not self._buffer:
            self._close()
        else:
            self._linger()

    def ended(self, exchange: RequestResponseCycle) -> None:
        """The application has returned."""
        if exchange.task is not None:
            self._state.tasks.discard(exchange.task)

    # -- requests

    def _take(self, data: bytes) -> None:
        """Serve the request that `data` begins with."""
        end = data.find(_END)
        if end <= 0 or end > MAX_HEAD_BYTES or data[0] == _CR:
            if data[0] == _CR:
                self._skip_empty_lines(data)
            else:
                self._wait_for_head(data, end)
            return
        try:
            scope, length, keep_alive, expects, upgrade = self._heads.read(data[:end])
        except Refusal as refusal:
            self._refuse(refusal)
            return
        self._buffer = b""
        if upgrade:
            head = request_head.without_upgrade(data[:end])
            data, end = head + data[end:], len(head)
        if length != CHUNKED:
            length += end + len(_END)
            if length < len(data):
                data = self._cut(data, length)
            length -= len(data)
        self._left = length
        self._deadline = math.inf
        self._active = exchange = RequestResponseCycle(self, scope, keep_alive=keep_alive, expects=expects)
        self._feed(exchange, data)
        if self._active is exchange:
            exchange.task = task = asyncio.Task(exchange.run(self._app), loop=self._loop, name="request")
            self._state.tasks.add(task)

    def _feed(self, exchange: RequestResponseCycle, data: bytes) -> None:
        """Let the parser judge and take apart what belongs to one request, or begins with it if it is in chunks."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not exchange.received:
                self._refuse(Refusal(400, f"no HTTP/1.1: {error}"))
                return
            exchange.keep_alive = False  # what follows chunks is no request
        if exchange.received is not (self._left == 0) and self._left != CHUNKED:
            self._refuse(Refusal(400, "the length of the request's body is not clear"))
        elif exchange.received or exchange.body:
            self._deadline = math.inf  # until the application asks for more
            if not exchange.received and len(exchange.body) > MAX_UNREAD_BYTES:
                self._pause_reading()

    def _continue(self, exchange: RequestResponseCycle, data: bytes) -> None:
        """Take more of a body, or keep what comes after it."""
        if exchange.received:
            self._buffer += data
            if self._buffer.strip(b"\r\n") or len(self._buffer) > MAX_HEAD_BYTES:
                self._pause_reading()
            return
        if self._left != CHUNKED:
            if self._left < len(data):
                data = self._cut(data, self._left)
            self._left -= len(data)
        self._feed(exchange, data)

    def _cut(self, data: bytes, end: int) -> bytes:
        """What belongs to this request; the rest waits, and its client too."""
        self._buffer = data[end:]
        self._pause_reading()
        return data[:end]

    def _skip_empty_lines(self, data: bytes) -> None:
        """Empty lines before a request are none of it (RFC 9112, section 2.2)."""
        rest = data.lstrip(b"\r\n")
        odd = data[: len(data) - len(rest)].replace(b"\r\n", b"")
        if rest and not odd:
            self._take(rest)
        elif rest or odd not in (b"", b"\r"):
            self._refuse(Refusal(400, "no HTTP/1.1"))
        else:
            self._hold(odd)

    def _wait_for_head(self, data: bytes, end: int) -> None:
        """Bound how much of a head there is, and how long it takes."""
        if end > MAX_HEAD_BYTES or len(data) > MAX_HEAD_BYTES:
            self._refuse(Refusal(431, f"a request's head may have at most {MAX_HEAD_BYTES} bytes"))
        elif data.count(b"\n") != data.count(b"\r\n") or not data[:1].isupper():
            self._refuse(Refusal(400, "no HTTP/1.1"))
        else:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        if data and not self._buffer:
            self._deadline = self._loop.time() + self.head_seconds
        self._buffer = data

    # -- the end

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what cannot be served, and close."""
        exchange, self._active = self._active, None
        if exchange is not None:
            exchange.disconnect()
            if exchange.begun:
                self.transport.abort()
                return
        text = f"{refusal}\n".encode()
        length = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(text)
        parts = (STATUS_LINES[refusal.status], self.common(), length, b"connection: close\r\n\r\n", text)
        self.transport.write(b"".join(parts))
        self._linger()

    def _linger(self) -> None:
        """Close, but read on for a while: to close on what was not read would take the answer from the client.

        See RFC 9112, section 9.6.
        """
        self._stop()
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._resume_reading()
        else:
            self.transport.close()

    def _close(self) -> None:
        self._stop()
        self.transport.close()

    def _stop(self) -> None:
        self._deaf = True
        self._buffer = b""
        self._deadline = self._loop.time() + self.linger_seconds

    def _pause_reading(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def _sweep(self) -> None:
        now = self._loop.time()
        if now >= self._deadline:
            if self._deaf:
                self.transport.abort()
                return
            if self._buffer or self._active is not None:
                self._refuse(Refusal(408, "the request took too long to come"))
            else:
                self._close()
        self._timer = self._loop.call_later(min(max(self._deadline - now, 0.001), self.sweep_seconds), self._sweep)
