"""One HTTP request and its answer, as an ASGI 3 application sees them (ASGI HTTP message format 2.3).

An answer's head waits for the first piece of its body, as ASGI wants it, so that a plain answer is one write.
"""

import asyncio
import http
import logging
from typing import Any, Final, Protocol

from starlette.types import ASGIApp, Message, Scope

logger = logging.getLogger(__name__)

_FIRST, _LAST = 200, 599
_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}
STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {_PHRASES.get(status, '')}\r\n".encode() for status in range(_FIRST, _LAST + 1)
}
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding", b"connection"))
"""What the server writes itself; an application's own say what it wants."""
_NO_CONTENT: Final = 204
_WITHOUT_BODY: Final = (_NO_CONTENT, 304)
_FAILED: Final = b"Internal Server Error\n"


class Connection(Protocol):
    """What an exchange needs of the connection over which it goes."""

    transport: asyncio.Transport
    writable: asyncio.Event | None
    """There is one while the client reads slower than the application writes; set when it may write again."""

    def common(self) -> bytes:
        """The header lines of every answer."""

    def ask(self, exchange: "RequestResponseCycle") -> None:
        """The application waits for more of the body, or for its client to go."""

    async def drain(self, writable: asyncio.Event) -> None:
        """Wait until the client has read, or is gone."""

    def finished(self, exchange: "RequestResponseCycle") -> None:
        """The answer is written."""

    def ended(self, exchange: "RequestResponseCycle") -> None:
        """The application has returned."""


class RequestResponseCycle:
    """`receive` and `send` are the application's; `run` is the whole of it."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_delivered",
        "_event",
        "_http_1_0",
        "_left",
        "_start",
        "begun",
        "body",
        "complete",
        "expects",
        "gone",
        "keep_alive",
        "received",
        "scope",
        "task",
    )

    def __init__(self, connection: Connection, scope: Scope, *, keep_alive: bool, expects: bool) -> None:
        self._connection = connection
        self.scope = scope
        self.keep_alive = keep_alive
        self.expects = expects  # 100 (Continue), before it sends its body
        self.body: bytes | bytearray = b""  # what has come and was not asked for yet
        self.received = False  # all of the body
        self.gone = False  # the client
        self.begun = False  # the answer, on the wire
        self.complete = False  # the answer
        self.task: asyncio.Task[None] | None = None
        self._http_1_0 = scope["http_version"] == "1.0"
        self._delivered = False
        self._event: asyncio.Event | None = None
        self._start: Message | None = None
        self._chunked = False
        self._left: int | None = None

    # -- the connection's side

    def feed(self, data: bytes) -> None:
        """A piece of the request's body."""
        if self.body:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += data
        else:
            self.body = data
        self.expects = False
        if self._event is not None:
            self._event.set()

    def wake(self) -> None:
        """Something is new for who waits in `receive`."""
        if self._event is not None:
            self._event.set()

    def disconnect(self) -> None:
        """Nothing more comes from the client, and nothing reaches it."""
        self.gone = True
        self.wake()

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer. If it does not, the client learns that, and the log why."""
        try:
            await app(self.scope, self.receive, self.send)
            if not (self.complete or self.gone):
                logger.error("the application returned and its answer is not complete")
                self._fail()
        except asyncio.CancelledError:
            self._fail()
            raise
        except Exception:
            logger.exception("the application failed")
            self._fail()
        finally:
            self._connection.ended(self)

    # -- the application's side

    async def receive(self) -> Message:
        """The body, in one piece or as it comes; then `http.disconnect`, once the client is gone or has its answer."""
        while not (self.complete or self.gone):
            if self.body or (self.received and not self._delivered):
                body, self.body = self.body, b""
                self._delivered = self.received
                return {"type": "http.request", "body": bytes(body), "more_body": not self.received}
            if self.expects and not self.begun:
                self.expects = False
                self._connection.transport.write(_CONTINUE)
            self._connection.ask(self)
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Write the answer; waits while the client is slow, and does nothing when it is gone.

        Raises:
            RuntimeError: the message is out of order, or the answer is not as its head says.
        """
        kind = message["type"]
        if kind == "http.response.body" and self._start is not None and not self.complete:
            writable = self._connection.writable
            if writable is not None and not self.gone:
                await self._connection.drain(writable)
            if self.gone:
                return
            more = message.get("more_body", False)
            if self.begun:
                self._continue(message.get("body", b""), more=more)
            else:
                self._begin(self._start, message.get("body", b""), more=more)
            if not more:
                self.complete = True
                if self._event is not None:
                    self._event.set()
                self._connection.finished(self)
        elif kind == "http.response.start" and self._start is None:
            self._start = message
        elif not self.gone:
            raise RuntimeError(f"{kind!r} cannot be sent at this point of an answer")

    def _begin(self, start: Message, body: bytes, *, more: bool) -> None:
        """Write the head, and what there is of the body, at once."""
        status: int = start["status"]
        line = STATUS_LINES.get(status)
        if line is None:
            raise RuntimeError(f"an answer's status is between {_FIRST} and {_LAST}, not {status!r}")
        fields, declared = self._fields(start.get("headers", ()))
        if status in _WITHOUT_BODY or self.scope["method"] == "HEAD":
            self._left, body = -1, b""
            framing = b"" if declared is None or status == _NO_CONTENT else b"content-length: %d\r\n" % declared
        elif more:
            framing, body = self._stream(declared, body)
        elif declared is None or declared == len(body):
            framing = b"content-length: %d\r\n" % len(body)
        else:
            raise RuntimeError(f"the answer has {len(body)} bytes, and its content-length is {declared}")
        if not (more or self.received):
            self.keep_alive = False  # the rest of the request is not going to be read
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif self._http_1_0:
            framing += b"connection: keep-alive\r\n"
        self.begun = True
        self._connection.transport.write(b"".join((line, self._connection.common(), fields, framing, b"\r\n", body)))

    def _stream(self, declared: int | None, body: bytes) -> tuple[bytes, bytes]:
        """How an answer that comes in pieces is framed, and its first piece so."""
        if declared is not None:
            self._left = _less(declared, body)
            return b"content-length: %d\r\n" % declared, body
        if self._http_1_0:
            self.keep_alive = False  # the end of the connection is the end of the answer
            return b"", body
        self._chunked = True
        return b"transfer-encoding: chunked\r\n", _chunk(body)

    def _fields(self, headers: Any) -> tuple[bytes, int | None]:
        """The application's header lines, and the length that it declares.

        Raises:
            RuntimeError: a header would end its line.
        """
        lines: list[bytes] = []
        declared: int | None = None
        for name, value in headers:
            if name not in _FRAMING:
                lines += (name, b": ", value, b"\r\n")
            elif name == b"content-length":
                declared = int(value)
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive = False
        fields = b"".join(lines)
        count = len(lines) // 4
        if fields.count(b"\n") != count or fields.count(b"\r") != count or b"\0" in fields:
            raise RuntimeError("a header of the answer has a line break or NUL in it")
        return fields, declared

    def _continue(self, body: bytes, *, more: bool) -> None:
        """Write the next piece of the body."""
        if self._chunked:
            body = _chunk(body) if more else _chunk(body) + b"0\r\n\r\n"
        elif self._left is not None:
            if self._left < 0:  # an answer without a body
                return
            self._left = _less(self._left, body)
            if self._left and not more:
                raise RuntimeError(f"the answer is {self._left} bytes shorter than its content-length")
        if body:
            self._connection.transport.write(body)

    def _fail(self) -> None:
        """An answer that was begun is cut, so that its client can tell; else there is one."""
        if self.complete or self.gone:
            return
        self.keep_alive = False
        if not self.begun:
            start = {"status": 500, "headers": [(b"content-type", b"text/plain; charset=utf-8")]}
            self._begin(start, _FAILED, more=False)
        self.complete = True
        self.wake()
        self._connection.finished(self)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


def _less(left: int, body: bytes) -> int:
    if len(body) > left:
        raise RuntimeError(f"the answer is {len(body) - left} bytes longer than its content-length")
    return left - len(body)
