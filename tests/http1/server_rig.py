"""An application behind the relay's HTTP protocol on a real socket, and clients that send raw bytes."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from starlette.types import Message, Receive, Scope, Send

from gateway.http1.server import HttpProtocol
from gateway.process import serve

HANG_S: Final = 60.0
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
        await asyncio.sleep(0)  # it waits now
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

    async def stops_short(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"9"))
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await send({"type": "http.response.body"})

    async def goes_too_far(self, _: Scope, __: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"5"))
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await send({"type": "http.response.body", "body": b"and more"})

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
"""A fixture."""


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


def refused(head: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + head + b"\r\n" + body


CHUNKED_POST: Final = (
    b"POST /?chunked HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
)
