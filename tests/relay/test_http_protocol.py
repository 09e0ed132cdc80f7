"""The relay's HTTP/1.1 over real sockets: raw bytes in, raw bytes out. RFC 9112 (HTTP/1.1), RFC 9110, ASGI 2.3."""

import asyncio
import contextlib
import email.utils
import json
import logging
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import httpx
import pytest
import uvloop
from starlette.types import Message, Receive, Scope, Send

from gateway.process import serve
from gateway.relay.http_protocol import MAX_HEAD_BYTES, HttpProtocol

HANG_S: Final = 10.0
HOST: Final = b"Host: relay\r\n"


class Hasty(HttpProtocol):
    """Limits that a test can wait for."""

    head_seconds: ClassVar[float] = 0.1
    body_seconds: ClassVar[float] = 0.1
    linger_seconds: ClassVar[float] = 0.1
    sweep_seconds: ClassVar[float] = 0.02


@dataclass(slots=True)
class App:
    """Does what the path says, and keeps what it saw."""

    scopes: list[Scope] = field(default_factory=list)
    received: list[Message] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """What the path /wait waits for."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        await getattr(self, scope["path"].strip("/").replace("-", "_") or "echo")(scope, receive, send)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await self.body(receive)
        text = f"{scope['method']} {scope['query_string'].decode()} {len(body)} ".encode() + body[:100]
        await answer(send, text)

    async def body(self, receive: Receive) -> bytes:
        body, more = b"", True
        while more:
            message = await receive()
            self.received.append(message)
            if message["type"] == "http.disconnect":
                self.events["disconnected in the body"] += 1
                break
            body += message["body"]
            more = message["more_body"]
        return body

    async def late(self, _: Scope, receive: Receive, send: Send) -> None:
        await self.go.wait()
        await answer(send, b"%d" % len(await self.body(receive)))

    async def early(self, _: Scope, __: Receive, send: Send) -> None:
        await answer(send, b"no", status=413)

    async def wait(self, _: Scope, receive: Receive, send: Send) -> None:
        await self.body(receive)
        self.events["waiting"] += 1
        await self.go.wait()
        await answer(send, b"waited")

    async def watch(self, _: Scope, receive: Receive, send: Send) -> None:
        await self.body(receive)
        self.events["watching"] += 1
        self.received.append(await receive())
        await answer(send, b"to nobody")
        self.events["ended"] += 1

    async def after(self, _: Scope, receive: Receive, send: Send) -> None:
        await self.body(receive)
        watching = asyncio.ensure_future(receive())
        await answer(send, b"done")
        self.received += [await watching, await receive()]
        self.events["ended"] += 1

    async def stream(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send)
        for piece in (b"one,", b"", b"two,", b"three"):
            await send({"type": "http.response.body", "body": piece, "more_body": piece != b"three"})

    async def stream_of_known_length(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"6"))
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body", "body": b"def"})

    async def flood(self, _: Scope, ___: Receive, send: Send) -> None:
        await start(send)
        for __ in range(400):
            await send({"type": "http.response.body", "body": bytes(64 * 1024), "more_body": True})
            self.events["sent"] += 1
        await send({"type": "http.response.body"})
        self.events["ended"] += 1

    async def empty(self, _: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def large(self, _: Scope, __: Receive, send: Send) -> None:
        await answer(send, bytes(4 * 1024 * 1024))

    async def closes(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send, (b"connection", b"close"), (b"transfer-encoding", b"chunked"))
        await send({"type": "http.response.body", "body": b"bye"})

    async def raises(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send)
        raise LookupError("on purpose")

    async def returns(self, _: Scope, __: Receive, ___: Send) -> None:
        pass

    async def raises_midway(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise LookupError("on purpose")

    async def splits(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send, (b"x-from-outside", b"a\r\nset-cookie: b"))
        await send({"type": "http.response.body"})

    async def lies(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"9"))
        await send({"type": "http.response.body", "body": b"short"})

    async def raises_after(self, _: Scope, __: Receive, send: Send) -> None:
        await answer(send, b"whole")
        raise LookupError("on purpose")


async def start(send: Send, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-app", b"1"), *headers]})


async def answer(send: Send, body: bytes, status: int = 200) -> None:
    lines = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


@dataclass(slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, data: bytes, *, head_only: bool = False) -> Answer:
        self.writer.write(data)
        return await self.answer(head_only=head_only)

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next answer, read as its head says."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        assert head[0].startswith("HTTP/1.1 ")
        names = [line.partition(": ")[0] for line in head[1:-2]]
        assert len(names) == len(set(names))
        headers = dict(line.split(": ", 1) for line in head[1:-2])
        status = int(head[0].split(" ")[1])
        body = b""
        if not (head_only or status in (100, 204, 304)):
            if "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            elif headers.get("transfer-encoding") == "chunked":
                body = await self.chunks()
            else:
                body = await self.reader.read()
        return Answer(status, headers, body)

    async def chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        assert await self.reader.readexactly(2) == b"\r\n"
        return body

    async def rest(self) -> bytes:
        """All that there is until the relay closes."""
        return await self.reader.read()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Server:
    """Serves an application, which may be replaced, in a loop and a thread of its own; clients live in the test's."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop], **settings: Any) -> None:
        self.app = App()
        self.port = 0
        self._new_loop = new_loop
        self._settings = settings
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._listening.wait(HANG_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(scope, receive, send)

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        self._listening.set()
        await serve(app, sock, stop=self._stop, grace_seconds=1, **self._settings)

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self.app.go.set)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._stop.set)

    def join(self) -> None:
        self._thread.join(HANG_S)
        assert not self._thread.is_alive()


@dataclass(slots=True)
class Served:
    """A server during one test."""

    server: Server
    stack: contextlib.AsyncExitStack

    @property
    def app(self) -> App:
        return self.server.app

    @property
    def port(self) -> int:
        return self.server.port

    async def connect(self, *, limit: int = 2**16) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        self.stack.callback(writer.close)
        return Client(reader, writer)


Serve = Callable[..., contextlib.AbstractAsyncContextManager[Served]]


@pytest.fixture(scope="module", params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def new_loop(request: pytest.FixtureRequest) -> Any:
    """The relay runs on uvloop; its protocol is not to depend on that."""
    return request.param


@pytest.fixture(scope="module")
def shared(new_loop: Any) -> Iterator[Server]:
    server = Server(new_loop, http=HttpProtocol)
    yield server
    server.stop()
    server.join()


@pytest.fixture
def served(new_loop: Any, shared: Server) -> Serve:
    """A new application behind the shared server, or behind a server with other settings, or behind one's own."""

    @contextlib.asynccontextmanager
    async def begin(http: type[HttpProtocol] = HttpProtocol, *, own: bool = False, **settings: Any) -> Any:
        own = own or bool(settings) or http is not HttpProtocol
        server = Server(new_loop, http=http, **settings) if own else shared
        server.app = App()
        async with asyncio.timeout(HANG_S), contextlib.AsyncExitStack() as stack:
            if own:
                stack.push_async_callback(asyncio.to_thread, server.join)
                stack.callback(server.stop)
            yield Served(server, stack)

    return begin


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what it waits for happens in another thread
        await asyncio.sleep(0.005)


async def stands_still(value: Callable[[], int]) -> None:
    """Wait until nothing has happened for so long that nothing will."""
    before, same = value(), 0
    while same < 10:
        await asyncio.sleep(0.01)
        now = value()
        same = same + 1 if now == before else 0
        before = now


def post(body: bytes, path: str = "/", *lines: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"POST {path} HTTP/1.1", "Host: relay", *lines))
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get(path: str = "/", *lines: str, version: str = "1.1") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/{version}", "Host: relay", *lines, "")).encode()


CHUNKED_POST: Final = (
    b"POST /?chunked HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
)


# -- the plain way


async def test_the_application_sees_the_request_as_asgi_says(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        await client.ask(
            b"POST /%65cho?a=%20b HTTP/1.1\r\nHost: relay\r\nX-Mixed:  value \t\r\nX-Two: 1\r\nx-two: 2\r\n"
            b"Content-Length: 2\r\n\r\n{}"
        )

        (scope,) = http.app.scopes
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/echo",
            "raw_path": b"/%65cho",
            "query_string": b"a=%20b",
            "root_path": "",
            "headers": [
                (b"host", b"relay"),
                (b"x-mixed", b"value"),
                (b"x-two", b"1"),
                (b"x-two", b"2"),
                (b"content-length", b"2"),
            ],
            "client": client.writer.get_extra_info("sockname"),
            "server": ("127.0.0.1", http.port),
        }
        assert http.app.received == [{"type": "http.request", "body": b"{}", "more_body": False}]


async def test_an_answer_has_its_length_and_a_date(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()

        answered = await client.ask(post(b"hello"))

        assert answered.status == 200
        assert answered.body == b"POST  5 hello"
        assert set(answered.headers) == {"date", "content-type", "content-length"}
        assert abs(email.utils.parsedate_to_datetime(answered.headers["date"]).timestamp() - time.time()) < HANG_S


async def test_head_and_body_of_a_plain_answer_are_one_write(served: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[bytes] = []
    made = HttpProtocol.connection_made

    class Spy:
        def __init__(self, transport: Any) -> None:
            self.transport = transport

        def write(self, data: bytes) -> None:
            writes.append(data)
            self.transport.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.transport, name)

    monkeypatch.setattr(HttpProtocol, "connection_made", lambda self, transport: made(self, Spy(transport)))  # type: ignore[arg-type]
    async with served() as http:
        client = await http.connect()
        await client.ask(post(b"hello"))

        assert len(writes) == 1
        assert writes[0].endswith(b"\r\n\r\nPOST  5 hello")


async def test_one_connection_serves_many_requests(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        for n in range(5):
            body = b"x" * n
            assert (await client.ask(post(body))).body == b"POST  %d %b" % (n, body)


async def test_httpx_gets_along_with_it(served: Serve) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    async with served() as http, httpx.AsyncClient(base_url=f"http://127.0.0.1:{http.port}") as client:
        assert (await client.post("/", json={"a": 1})).text == f"POST  7 {json.dumps({'a': 1}, separators=(',', ':'))}"
        assert (await client.post("/", content=pieces())).text == "POST  3 abc"
        assert (await client.get("/stream")).text == "one,two,three"
        assert (await client.head("/stream")).text == ""
        assert (await client.get("/empty")).status_code == 204
        assert len((await client.get("/large")).content) == 4 * 1024 * 1024
        assert (await client.post("/early", content=bytes(1024 * 1024))).status_code == 413
        assert (await client.post("/", content=bytes(1024 * 1024))).text.startswith("POST  1048576 ")
        assert {scope["client"] for scope in http.app.scopes[:6]} == {http.app.scopes[0]["client"]}


# -- what is a request

REQUESTS: Final = {
    "a body of a known length": (post(b"abc"), b"POST  3 abc"),
    "no body": (get("/?q"), b"GET q 0 "),
    "chunks, an extension, a trailer": (CHUNKED_POST, b"POST chunked 5 abcde"),
    "an empty line before it": (b"\r\n\r\n" + get("/"), b"GET  0 "),
    "a whole URL": (get("http://relay:80/?q"), b"GET q 0 "),
    "a whole URL without a path": (get("http://relay"), b"GET  0 "),
    "a fragment": (get("/?q#f"), b"GET q 0 "),
    "an upgrade to HTTP/2": (post(b"abc", "/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"), b"POST  3 abc"),
    "an upgrade to WebSocket": (get("/", "Connection: upgrade", "Upgrade: websocket"), b"GET  0 "),
    "an upgrade with chunks": (
        CHUNKED_POST.replace(HOST, HOST + b"Connection: Upgrade\r\nUpgrade: x\r\n"),
        b"POST chunked 5 abcde",
    ),
    "an upgrade that no Connection announces": (post(b"abc", "/", "Upgrade: h2c"), b"POST  3 abc"),
    "names in capitals": (b"POST / HTTP/1.1\r\nHOST: relay\r\nCONTENT-LENGTH: 1\r\n\r\na", b"POST  1 a"),
    "a length with spaces around": (b"POST / HTTP/1.1\r\nHost: relay\r\nContent-Length: \t 1 \r\n\r\na", b"POST  1 a"),
}


@pytest.mark.parametrize("how", ["at once", "byte by byte"])
@pytest.mark.parametrize("shape", REQUESTS)
async def test_a_request_is_understood_and_the_next_one_too(served: Serve, shape: str, how: str) -> None:
    data, expected = REQUESTS[shape]
    async with served() as http:
        client = await http.connect()
        for _ in range(2):
            for piece in [data] if how == "at once" else [data[at : at + 1] for at in range(len(data))]:
                client.writer.write(piece)
                await asyncio.sleep(0)
            answered = await client.answer()
            assert answered.body == expected
            assert "connection" not in answered.headers


async def test_trailers_are_no_headers(served: Serve) -> None:
    async with served() as http:
        await (await http.connect()).ask(CHUNKED_POST)
        assert b"x-trailer" not in dict(http.app.scopes[0]["headers"])


def refused(head: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + head + b"\r\n" + body


REFUSED: Final = {
    "both length and chunks": (refused(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"), 400),
    "both, the other way round": (refused(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", b"0\r\n\r\n"), 400),
    "two lengths that differ": (refused(b"Content-Length: 1\r\nContent-Length: 2\r\n", b"ab"), 400),
    "two equal lengths": (refused(b"Content-Length: 1\r\nContent-Length: 1\r\n", b"a"), 400),
    "a list of lengths": (refused(b"Content-Length: 1, 1\r\n", b"a"), 400),
    "a signed length": (refused(b"Content-Length: +1\r\n", b"a"), 400),
    "a negative length": (refused(b"Content-Length: -1\r\n", b"a"), 400),
    "a length with an underscore": (refused(b"Content-Length: 1_0\r\n", b"0123456789"), 400),
    "an empty length": (refused(b"Content-Length:\r\n"), 400),
    "a length beyond all bounds": (refused(b"Content-Length: " + b"9" * 30 + b"\r\n"), 400),
    "a length beyond what an integer is read from": (refused(b"Content-Length: " + b"9" * 5000 + b"\r\n"), 400),
    "a space before the colon": (refused(b"Content-Length : 1\r\n", b"a"), 400),
    "a folded line": (refused(b"X: a\r\n b\r\n"), 400),
    "a line that begins with a space": (b"POST / HTTP/1.1\r\n X: a\r\nHost: relay\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: relay\n\n", 400),
    "bare LF in a line": (refused(b"X: a\nContent-Length: 1\r\n", b"a"), 400),
    "bare CR in a line": (refused(b"X: a\rContent-Length: 1\r\n", b"a"), 400),
    "NUL": (refused(b"X: a\0b\r\n"), 400),
    "no name": (refused(b": a\r\n"), 400),
    "no colon": (refused(b"abc\r\n"), 400),
    "another coding": (refused(b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n"), 501),
    "a coding in two lines": (
        refused(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        400,
    ),
    "a coding that only looks like chunked": (refused(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 501),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a chunk's size that is none": (refused(b"Transfer-Encoding: chunked\r\n", b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "a negative chunk": (refused(b"Transfer-Encoding: chunked\r\n", b"-1\r\na\r\n0\r\n\r\n"), 400),
    "a chunk that is longer than it says": (refused(b"Transfer-Encoding: chunked\r\n", b"1\r\nab\r\n0\r\n\r\n"), 400),
    "a chunk's size that overflows": (refused(b"Transfer-Encoding: chunked\r\n", b"f" * 17 + b"\r\na\r\n"), 400),
    "a bare LF in a chunk's line": (refused(b"Transfer-Encoding: chunked\r\n", b"1;a\nX\r\na\r\n0\r\n\r\n"), 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (refused(b"Host: other\r\n"), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "another version": (get(version="1.2"), 505),
    "a method in small letters": (b"post / HTTP/1.1\r\nHost: relay\r\n\r\n", 400),
    "no method that there is": (b"BREW / HTTP/1.1\r\nHost: relay\r\n\r\n", 400),
    "CONNECT": (b"CONNECT relay:80 HTTP/1.1\r\nHost: relay\r\n\r\n", 501),
    "a space in the target": (get("/a b"), 400),
    "bytes beyond ASCII in the target": ("GET /é HTTP/1.1\r\nHost: relay\r\n\r\n".encode(), 400),
    "no target": (b"GET  HTTP/1.1\r\nHost: relay\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a head that is too large": (refused(b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n"), 431),
    "a head that does not end": (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES, 431),
}


@pytest.mark.parametrize("shape", REFUSED)
async def test_what_could_be_understood_in_two_ways_is_refused(served: Serve, shape: str) -> None:
    data, status = REFUSED[shape]
    async with served() as http:
        client = await http.connect()

        answered = await client.ask(data + get("/smuggled"))

        assert answered.status == status
        assert answered.headers["connection"] == "close"
        assert answered.body.endswith(b"\n")
        assert await client.rest() == b""
        assert http.app.scopes == []


async def test_a_mistake_in_a_later_chunk_ends_the_request(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(refused(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"))
        await until(lambda: http.app.received)

        answered = await client.ask(b"what is this?\r\n")

        assert answered.status == 400
        assert await client.rest() == b""
        await until(lambda: http.app.events["disconnected in the body"])


async def test_a_large_head_in_many_pieces_is_refused(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(b"GET / HTTP/1.1\r\n")
        for n in range(20):
            client.writer.write(b"X-%d: %b\r\n" % (n, b"a" * 4096))
            await asyncio.sleep(0)

        assert (await client.answer()).status == 431
        assert await client.rest() == b""


async def test_headers_beyond_ascii_come_as_they_are(served: Serve) -> None:
    async with served() as http:
        await (await http.connect()).ask(b"GET / HTTP/1.1\r\nHost: relay\r\nX: \xc3\xa9\xff\r\n\r\n")
        assert (b"x", b"\xc3\xa9\xff") in http.app.scopes[0]["headers"]


# -- how long a connection lives


@pytest.mark.parametrize(
    ("request_", "connection"),
    [
        (get("/", "Connection: close"), "close"),
        (get("/", "Connection: TE, Close"), "close"),
        (get(version="1.0"), "close"),
        (get("/closes"), "close"),
        (get("/stream", version="1.0"), "close"),
        (get("/stream", "Connection: keep-alive", version="1.0"), "close"),
    ],
)
async def test_a_connection_that_is_to_end_ends_after_the_answer(
    served: Serve, request_: bytes, connection: str
) -> None:
    async with served() as http:
        client = await http.connect()

        answered = await client.ask(request_)

        assert answered.status == 200
        assert answered.headers["connection"] == connection
        assert "transfer-encoding" not in answered.headers
        assert answered.body in {b"GET  0 ", b"bye", b"one,two,three"}
        assert await client.rest() == b""


async def test_http_1_0_can_keep_its_connection(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        for _ in range(2):
            answered = await client.ask(get("/", "Connection: Keep-Alive", version="1.0"))
            assert answered.headers["connection"] == "keep-alive"
            assert http.app.scopes[-1]["http_version"] == "1.0"


async def test_an_idle_connection_is_closed(served: Serve) -> None:
    async with served(keep_alive_seconds=1) as http:
        fresh, used = await http.connect(), await http.connect()
        await used.ask(get())

        assert await used.rest() == b""
        assert await fresh.rest() == b""


async def test_a_connection_with_a_request_under_way_is_not_idle(served: Serve) -> None:
    async with served(Hasty, keep_alive_seconds=1) as http:
        idle, busy = await http.connect(), await http.connect()
        busy.writer.write(get("/wait"))
        await until(lambda: http.app.events["waiting"])
        assert await idle.rest() == b""  # so much time has passed
        http.server.let_go()

        assert (await busy.answer()).body == b"waited"


@pytest.mark.parametrize(
    "begun", [b"G", b"GET / HTTP/1.1\r\nHo", post(b"")[:-2], post(b"abc")[:-1], CHUNKED_POST[:-3], CHUNKED_POST[:-20]]
)
async def test_a_client_that_does_not_go_on_is_told_and_closed(served: Serve, begun: bytes) -> None:
    async with served(Hasty) as http:
        client = await http.connect()

        answered = await client.ask(begun)

        assert answered.status == 408
        assert await client.rest() == b""


async def test_time_for_a_head_does_not_begin_anew_with_each_byte(served: Serve) -> None:
    async with served(Hasty) as http:
        client = await http.connect()
        reading = asyncio.create_task(client.answer())
        for byte in get("/", "X: " + "a" * 1000):
            if reading.done():
                break
            client.writer.write(bytes((byte,)))
            await asyncio.sleep(0.01)

        assert (await reading).status == 408


async def test_a_client_that_never_closes_is_cut_off(served: Serve) -> None:
    async with served(Hasty) as http:
        client = await http.connect()
        answered = await client.ask(b"nonsense\r\n\r\n")
        assert answered.status == 400
        with contextlib.suppress(ConnectionError):  # until the relay does not take any more
            while True:
                client.writer.write(bytes(1024))
                await client.writer.drain()
                await asyncio.sleep(0.005)


# -- one after the other


async def test_pipelined_requests_are_answered_in_their_order(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(b"".join(post(b"x" * n, f"/?{n}") for n in range(300)))

        for n in range(300):
            assert (await client.answer()).body.startswith(b"POST %d %d " % (n, n))


async def test_a_pipelined_request_waits_for_the_one_before(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/wait") + get("/?second")[:20])
        await until(lambda: http.app.events["waiting"])
        client.writer.write(get("/?second")[20:] + get("/?third"))
        assert [scope["path"] for scope in http.app.scopes] == ["/wait"]
        http.server.let_go()

        assert [(await client.answer()).body for _ in range(3)] == [b"waited", b"GET second 0 ", b"GET third 0 "]


async def test_what_is_wrong_is_refused_after_what_was_right_is_answered(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/?first") + get("/?second") + b"nonsense\r\n\r\n" + get("/?never"))

        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.rest() == b""
        assert len(http.app.scopes) == 2


async def test_nothing_is_served_after_the_last_request(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/?last", "Connection: close") + get("/?never"))

        assert (await client.answer()).body == b"GET last 0 "
        assert await client.rest() == b""
        assert len(http.app.scopes) == 1


@pytest.mark.parametrize("following", [get("/?never"), get("/?never")[:9], b"nonsense\r\n\r\n"])
async def test_what_follows_chunks_at_once_has_to_be_sent_again(served: Serve, following: bytes) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(CHUNKED_POST + following)

        answered = await client.answer()
        assert answered.body == b"POST chunked 5 abcde"
        assert answered.headers["connection"] == "close"
        assert await client.rest() == b""
        assert len(http.app.scopes) == 1


# -- bodies


async def test_the_client_is_told_to_go_on_when_the_application_asks(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        data = post(b"abc", "/", "Expect: 100-Continue")
        asked = await client.ask(data[:-3])
        assert asked.status == 100

        assert (await client.ask(b"abc")).body == b"POST  3 abc"
        assert (await client.ask(get())).body == b"GET  0 "


async def test_nobody_is_told_to_go_on_who_has_begun(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        assert (await client.ask(post(b"abc", "/", "Expect: 100-continue"))).status == 200


async def test_an_answer_instead_of_the_body_ends_the_connection(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        answered = await client.ask(post(b"abc", "/early", "Expect: 100-continue")[:-3])

        assert answered.status == 413
        assert answered.headers["connection"] == "close"
        assert await client.rest() == b""


async def test_a_client_that_goes_on_sending_can_read_the_early_answer(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(b"POST /early HTTP/1.1\r\nHost: relay\r\nContent-Length: 20000000\r\n\r\n")
        for _ in range(20):
            client.writer.write(bytes(1_000_000))
            await client.writer.drain()

        answered = await client.answer()

        assert answered.status == 413
        assert answered.headers["connection"] == "close"
        assert await client.rest() == b""


async def test_a_body_that_nobody_reads_is_not_kept(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(post(bytes(30_000_000), "/late"))
        await stands_still(client.writer.transport.get_write_buffer_size)
        assert client.writer.transport.get_write_buffer_size() > 0
        http.server.let_go()

        assert (await client.answer()).body == b"30000000"
        assert max(len(message["body"]) for message in http.app.received) < 1_000_000


# -- answers


async def test_an_answer_in_pieces_is_chunked_and_the_connection_stays(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        for _ in range(2):
            answered = await client.ask(get("/stream"))
            assert answered.headers["transfer-encoding"] == "chunked"
            assert answered.body == b"one,two,three"


async def test_an_answer_in_pieces_of_known_length_is_not_chunked(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        for _ in range(2):
            answered = await client.ask(get("/stream-of-known-length"))
            assert "transfer-encoding" not in answered.headers
            assert answered.body == b"abcdef"


@pytest.mark.parametrize("path", ["/", "/stream", "/stream-of-known-length", "/large"])
async def test_an_answer_to_head_has_no_body(served: Serve, path: str) -> None:
    async with served() as http:
        client = await http.connect()
        answered = await client.ask(get(path).replace(b"GET", b"HEAD"), head_only=True)

        assert answered.status == 200
        assert answered.headers.get("content-length") == {
            "/": "8",
            "/stream-of-known-length": "6",
            "/large": str(4 * 1024 * 1024),
        }.get(path)
        assert (await client.ask(get())).body == b"GET  0 "


async def test_an_answer_without_content_has_neither_body_nor_length(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        answered = await client.ask(get("/empty"))
        assert answered.status == 204
        assert set(answered.headers) == {"date"}
        assert (await client.ask(get())).body == b"GET  0 "


async def test_an_application_waits_for_a_client_that_reads_slowly(served: Serve) -> None:
    async with served() as http:
        client = await http.connect(limit=1024)
        client.writer.write(get("/flood"))
        await until(lambda: http.app.events["sent"])
        await stands_still(lambda: http.app.events["sent"])
        assert http.app.events["sent"] < 400

        assert len((await client.answer()).body) == 400 * 64 * 1024
        await until(lambda: http.app.events["ended"])


async def test_an_application_whose_client_is_gone_does_not_wait_for_it_to_read(served: Serve) -> None:
    async with served() as http:
        client = await http.connect(limit=1024)
        client.writer.write(get("/flood"))
        await until(lambda: http.app.events["sent"])
        await stands_still(lambda: http.app.events["sent"])
        client.reset()

        await until(lambda: http.app.events["ended"])


async def test_an_application_learns_that_its_client_is_gone(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(post(b"abc", "/watch"))
        await until(lambda: http.app.events["watching"])
        client.writer.close()

        await until(lambda: http.app.events["ended"])
        assert [message["type"] for message in http.app.received] == ["http.request", "http.disconnect"]


async def test_an_application_learns_that_its_client_is_gone_amid_the_body(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(post(b"abc")[:-1])
        await until(lambda: http.app.received)
        client.writer.close()

        await until(lambda: http.app.events["disconnected in the body"])


async def test_after_the_answer_there_is_nothing_to_receive(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        await client.ask(post(b"abc", "/after"))

        await until(lambda: http.app.events["ended"])
        assert [message["type"] for message in http.app.received] == ["http.request", *["http.disconnect"] * 2]
        assert (await client.ask(get())).body == b"GET  0 "


# -- applications that fail

FAILURES: Final = {
    "/raises": "the application failed",
    "/returns": "the application returned",
    "/splits": "a header of the answer",
    "/lies": "the answer has 5 bytes, and its content-length is 9",
}


@pytest.mark.parametrize("path", FAILURES)
async def test_a_request_that_fails_has_an_answer(served: Serve, path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as http:
        client = await http.connect()

        answered = await client.ask(get(path))

        assert answered.status == 500
        assert answered.headers["connection"] == "close"
        assert answered.body == b"Internal Server Error\n"
        assert await client.rest() == b""
        assert FAILURES[path] in caplog.text


async def test_an_answer_that_fails_midway_is_not_taken_for_whole(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/raises-midway"))

        assert (await client.rest()).endswith(b"\r\n\r\n4\r\nhalf\r\n")


async def test_an_application_may_fail_after_its_answer(served: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as http:
        client = await http.connect()
        assert (await client.ask(get("/raises-after"))).body == b"whole"
        assert (await client.ask(get())).body == b"GET  0 "
        assert "on purpose" in caplog.text


# -- the end


async def test_a_stop_closes_idle_connections_and_lets_busy_ones_answer(served: Serve) -> None:
    async with served(own=True) as http:
        idle, busy, streaming = await http.connect(), await http.connect(), await http.connect()
        await idle.ask(get())
        busy.writer.write(get("/wait"))
        streaming.writer.write(get("/wait", "Connection: keep-alive"))
        await until(lambda: http.app.events["waiting"] == 2)
        http.server.stop()
        assert await idle.rest() == b""
        http.server.let_go()

        for client in (busy, streaming):
            answered = await client.answer()
            assert answered.body == b"waited"
            assert answered.headers["connection"] == "close"
            assert await client.rest() == b""
        await asyncio.to_thread(http.server.join)


async def test_a_stop_cuts_what_does_not_end(served: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "uvicorn.error"):
        async with served(own=True) as http:
            client = await http.connect()
            client.writer.write(get("/wait"))
            await until(lambda: http.app.events["waiting"])
            http.server.stop()

            assert (await client.answer()).status == 500
            assert await client.rest() == b""
            await asyncio.to_thread(http.server.join)
