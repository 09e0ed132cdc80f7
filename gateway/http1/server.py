"""uvicorn's HTTP/1.1 protocol with bounded time and size, and plain responses in one write (docs/adr/0003).

uvicorn and llhttp parse, queue and write. Added here: deadlines, a bound on what is no body, the rules of RFC 9112
that llhttp leaves to its user, and requests with a body that offer another protocol.
"""

import asyncio
import functools
import urllib.parse
from typing import Any, ClassVar, Final

import httptools
import uvicorn
from starlette.types import Message
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

MAX_HEAD_BYTES: Final = 64 * 1024
"""The bound also holds for chunk extensions and trailers, between one piece of a body and the next."""
_TOO_LARGE: Final = f"the head of a request may have at most {MAX_HEAD_BYTES} bytes"
_FRAMING: Final = frozenset((b"connection", b"transfer-encoding"))
_ASGI: Final = {"version": "3.0", "spec_version": "2.3"}


class RejectedRequest(Exception):  # noqa: N818 - raised in a callback to stop the parser
    """The request cannot be served: an HTTP status and the reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class OneWriteCycle(RequestResponseCycle):
    """Holds the head of a response until its body comes, as two writes would wake the client twice."""

    task: asyncio.Task[None]
    _start: Message | None = None
    _until_close = False

    async def receive(self) -> Any:
        """Hand over a body that has arrived as a whole; uvicorn does all else."""
        if self.more_body or not self.body or self.disconnected or self.response_complete:
            return await super().receive()
        self.message_event.clear()
        body, self.body = bytes(self.body), bytearray()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Any) -> None:
        """Write a plain response at once. Any other response, and any mistake in one, is left to uvicorn."""
        if message["type"] == "http.response.start" and not self.response_started:
            self._start = message
            if self.waiting_for_100_continue:  # nobody knows whether the body will still come
                self.keep_alive = False
            return
        start, self._start = self._start, None
        if start is not None:
            response = self._plain(start, message)
            if response is not None:
                self.response_started = self.response_complete = True
                self.transport.write(response)
                self.message_event.set()
                self.on_response()
                return
            if self.scope["http_version"] == "1.0" and b"content-length" not in dict(start.get("headers", ())):
                self.chunked_encoding, self._until_close = False, True  # HTTP/1.0 has no chunks (RFC 9112, section 6.1)
            await super().send(start)  # type: ignore[arg-type]  # uvicorn's own names for messages
        if self._until_close:
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)

    def _plain(self, start: Message, message: Message) -> bytes | None:
        """A whole response of the length that it declares, on a connection that stays; None for anything else."""
        if not self.keep_alive or self.disconnected or message.get("more_body") or self.flow.write_paused:
            return None
        body: bytes = message.get("body", b"")
        length = None
        lines = [STATUS_LINE[start["status"]]]
        for name, value in self.default_headers:
            lines += (name, b": ", value, b"\r\n")
        for name, value in start.get("headers", ()):
            lines += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                length = value
            elif name in _FRAMING:
                return None
        head = b"".join(lines)
        count = len(lines) // 4 + 1
        if head.count(b"\r") != count or head.count(b"\n") != count or b"\0" in head:  # in a value as well
            return None
        if length != b"%d" % len(body) or self.scope["method"] == "HEAD":
            return None
        return b"".join((head, b"\r\n", body))


class HttpProtocol(HttpToolsProtocol):
    """One connection, as uvicorn makes it. The limits, in seconds, are a subclass's to change."""

    head_seconds: ClassVar[float] = 30.0
    """From a request's first byte to the end of its head."""
    body_seconds: ClassVar[float] = 75.0
    """Between two pieces of a request's body, and for a client that reads too slowly to make room."""
    linger_seconds: ClassVar[float] = 10.0
    """From the last response to the end of a connection that its client does not close."""
    sweep_seconds: ClassVar[float] = 1.0
    """How often a connection looks at its limits: a timer for each request would cost more."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._running: RequestResponseCycle | None = None  # uvicorn's `cycle` is the newest, which may have to wait
        self._quiet = 0.0  # seconds without progress, counted by the sweep
        self._overhead = 0  # bytes that were no body, since the last piece of one
        self._in_head = self._upgrading = self._rejected = False
        self._refused = False  # this connection has got its last response, which is not the application's

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._sweeper = self.loop.call_later(self.sweep_seconds, self._sweep)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sweeper.cancel()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return
        self._overhead += len(data)
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._ignore_upgrade(data[upgrade.args[0] :])
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            cause = error.__context__
            if isinstance(cause, RejectedRequest):
                self._reject(cause.status, str(cause))
            else:
                self._reject(400, f"not HTTP/1.1: {error}")
        if self._overhead > MAX_HEAD_BYTES and not self._rejected:
            self._reject(431, _TOO_LARGE)

    def pause_writing(self) -> None:
        self._quiet = 0.0
        super().pause_writing()

    # -- httptools

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self._in_head, self._quiet = True, 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip()))

    def on_headers_complete(self) -> None:
        self._in_head, self._quiet = False, 0.0
        headers, self.headers = self.headers, []  # what else comes are trailers, which are no headers of the request
        version, fields = self.parser.get_http_version(), dict(headers)
        unusual = version != "1.1" or b"host" not in fields or b"transfer-encoding" in fields
        if unusual or len(fields) != len(headers):
            _check(version, headers)
        if self._overhead > MAX_HEAD_BYTES and sum(len(n) + len(v) for n, v in headers) > MAX_HEAD_BYTES:
            raise RejectedRequest(431, _TOO_LARGE)
        self._upgrading = self.parser.should_upgrade()
        if self._upgrading:
            self.headers = headers
            return
        path, raw_path, query = _target(self.url, self.root_path)
        self.scope = {
            "type": "http",
            "asgi": _ASGI,  # type: ignore[typeddict-item]
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "method": self.parser.get_method().decode("ascii"),
            "root_path": self.root_path,
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": self.app_state.copy(),
        }
        before = self.cycle
        self.cycle = OneWriteCycle(
            self.scope,
            self.transport,
            self.flow,
            self.logger,
            self.access_logger,
            self.access_log,
            self.server_state.default_headers,
            asyncio.Event(),
            fields.get(b"expect", b"").lower() == b"100-continue",
            version != "1.0" and self.parser.should_keep_alive(),
            self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._overhead, self._quiet = 0, 0.0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            cycle.waiting_for_100_continue = False
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._overhead = 0
        if not (self._upgrading or self.cycle.response_complete):
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the request again without its `Upgrade`, for which llhttp has passed over its body.

        No server has to grant it (RFC 9110, section 7.8), and the HTTP client of Java sends it with a POST.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            raise httptools.HttpParserError("CONNECT is for proxies")
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += (b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade")
        self.parser.feed_data(b"%b\r\n\r\n%b" % (b"\r\n".join(lines), rest))

    # -- uvicorn

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        cycle.task = asyncio.Task(self._run(cycle, app), loop=self.loop, name="request")
        self.tasks.add(cycle.task)

    async def _run(self, cycle: Any, app: Any) -> None:
        try:
            await cycle.run_asgi(app)
        finally:
            self.tasks.discard(cycle.task)  # a callback of the task, as uvicorn has it, costs a turn of the loop

    def shutdown(self) -> None:
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def on_response_complete(self) -> None:
        self._quiet = 0.0
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:  # reading stays paused, or each response would let in as many requests as fit into a read
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.flow.resume_reading()

    # -- the end

    def _reject(self, status: int, reason: str) -> None:
        """Respond to what cannot be served, and close; what was right before it is answered first."""
        self._rejected, self._quiet = True, 0.0
        cycle = self.cycle
        if self._running is not None and cycle is not self._running and cycle.more_body:
            self.pipeline.remove((cycle, self.app))  # it waits behind requests that are right
            self.cycle = cycle = self.pipeline[0][0] if self.pipeline else self._running
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                cycle.keep_alive = False
                return
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                self.transport.abort()
                return
        self._refused = True
        lines = [STATUS_LINE[status], *(b"%b: %b\r\n" % header for header in self.server_state.default_headers)]
        text = f"{reason}\n".encode()
        lines.append(b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % len(text))
        self.transport.write(b"%bconnection: close\r\n\r\n%b" % (b"".join(lines), text))
        if self.transport.can_write_eof():  # closing on what was not read would take the response from the client
            self.transport.write_eof()
            self.flow.resume_reading()
        else:
            self.transport.close()

    def _sweep(self) -> None:
        """End what takes too long: by 408 where the client owes a part of a request, else by closing."""
        self._sweeper = self.loop.call_later(self.sweep_seconds, self._sweep)
        self._quiet += self.sweep_seconds
        cycle = self.cycle
        idle = cycle is None or cycle.response_complete
        if self.transport.is_closing() or self._refused or (self._rejected and idle):
            limit, end = self.linger_seconds, self.transport.abort
        elif self.flow.write_paused:
            limit, end = self.body_seconds, self.transport.abort
        elif self._in_head:
            limit, end = self.head_seconds, self._time_out
        elif idle:
            limit, end = self.timeout_keep_alive, self.transport.close
        elif cycle.more_body and not (cycle.waiting_for_100_continue or self.flow.read_paused):
            limit, end = self.body_seconds, self._time_out
        else:  # the application's turn
            return
        if self._quiet >= limit:
            end()

    def _time_out(self) -> None:
        self._reject(408, "the request took too long to arrive")


@functools.lru_cache(maxsize=64)
def _target(url: bytes, root_path: str) -> tuple[str, bytes, bytes]:
    """The path, as text and as it came, and the query of a request's target (RFC 9112, section 3.2)."""
    if url.startswith(b"/") and b"#" not in url:
        raw_path, _, query = url.partition(b"?")
    else:
        parsed = httptools.parse_url(url)
        raw_path, query = parsed.path or b"/", parsed.query or b""
    path = urllib.parse.unquote(raw_path.decode("ascii"))
    return root_path + path, root_path.encode("ascii") + raw_path, query


def _check(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Reject what a proxy in front of this server could understand in another way (RFC 9112, sections 3.2 and 6.1)."""
    names = [name for name, _ in headers]
    if version not in ("1.0", "1.1"):
        raise RejectedRequest(505, "send HTTP/1.1")
    if names.count(b"host") > 1 or (version == "1.1" and b"host" not in names):
        raise RejectedRequest(400, "a request needs one Host header")
    if names.count(b"transfer-encoding") > (version == "1.1"):
        raise RejectedRequest(400, "at most one Transfer-Encoding header, and none in HTTP/1.0")
    if dict(headers).get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise RejectedRequest(501, "the only transfer coding is chunked")
