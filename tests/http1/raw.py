"""An upstream made of nothing but bytes: a TCP or TLS server that does with each request what a test tells it to.

What it does is data: a list of steps for each request. Bytes are sent as they are; the rest is below.
"""

import asyncio
import contextlib
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final


class Do(Enum):
    """A step that sends nothing."""

    CLOSE = auto()
    """Close the connection, in order (FIN)."""
    RESET = auto()
    """Close it by force (RST)."""
    HOLD = auto()
    """Say nothing until the other side closes."""


@dataclass(frozen=True, slots=True)
class Drip:
    """Bytes that come one by one."""

    data: bytes


Step = bytes | Drip | asyncio.Event | Do
"""An event is waited for."""
Steps = Sequence[Step]


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came, and the connection that it came over, counted from 0."""

    connection: int
    head: bytes
    body: bytes

    @property
    def message(self) -> Any:
        if not self.body:
            return {}
        return json.loads(self.body, parse_int=lambda digits: int(digits) if len(digits) < 4000 else digits)

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}

    @property
    def verb(self) -> str:
        """POST, GET or DELETE."""
        return self.head.decode("latin-1").partition(" ")[0]


Behave = Callable[[Request], Steps]


@dataclass(slots=True)
class Raw:
    """The server, and what came to it."""

    url: str = ""
    requests: list[Request] = field(default_factory=list)
    accepted: int = 0
    closed: int = 0
    """Connections that the other side has closed, or that were closed by a step."""

    @property
    def open(self) -> int:
        return self.accepted - self.closed

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])

    @property
    def calls(self) -> list[Request]:
        """The `tools/call` requests, with every repetition."""
        return [request for request in self.requests if request.message.get("method") == "tools/call"]

    def methods(self) -> list[str]:
        return [request.message.get("method", "") for request in self.requests]


@contextlib.asynccontextmanager
async def raw(
    behave: Behave,
    *,
    greet: Steps = (),
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Raw]:
    """Serve; `greet` is done to every connection before a request has come."""
    server = Raw()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        number = server.accepted
        server.accepted += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):  # cancelled: the test is over
                if await _play(greet, reader, writer):
                    await _converse(number, reader, writer)
        finally:
            server.closed += 1
            tasks.discard(task)
            writer.transport.abort()

    async def _converse(number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            request = Request(number, head, b"")
            body = await reader.readexactly(int(request.headers.get("content-length", "0")))
            request = Request(number, head, body)
            server.requests.append(request)
            if not await _play(behave(request), reader, writer):
                return

    listener = await asyncio.start_server(accept, host, port, ssl=tls)
    scheme = "https" if tls else "http"
    authority = f"[{host}]" if ":" in host else host
    server.url = f"{scheme}://{authority}:{listener.sockets[0].getsockname()[1]}/mcp"
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _play(steps: Steps, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection is still there."""
    for step in steps:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
            case Drip(data):
                for i in range(len(data)):
                    writer.write(data[i : i + 1])
                    await writer.drain()
                    await asyncio.sleep(0)  # the other side reads it alone
            case asyncio.Event():
                await step.wait()
            case Do.HOLD:
                while await reader.read(65536):
                    pass
                return False
            case Do.RESET:
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return False
            case Do.CLOSE:
                writer.close()
                await writer.wait_closed()
                return False
    return True


# -- answers


def head(status: int = 200, *lines: str) -> bytes:
    """A status line and header lines."""
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", *lines, "", ""]).encode()


def whole(body: bytes, status: int = 200, *lines: str, content_type: str = "application/json") -> bytes:
    """An answer with a length."""
    return head(status, f"content-type: {content_type}", f"content-length: {len(body)}", *lines) + body


def chunked(body: bytes, size: int, *lines: str) -> bytes:
    """An answer in chunks of `size`."""
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    encoded = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head(200, "content-type: application/json", "transfer-encoding: chunked", *lines) + encoded + b"0\r\n\r\n"


SSE_HEAD: Final = head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
SSE_END: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(message: Mapping[str, Any] | bytes, end: bytes = b"\n") -> bytes:
    """One chunk with one event in it."""
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return chunk(b"event: message%bdata: %b%b%b" % (end, data, end, end))


def result(request: Request, value: Any) -> dict[str, Any]:
    """A JSON-RPC response to `request`."""
    return {"jsonrpc": "2.0", "id": request.message["id"], "result": value}


def error(request: Request, code: int, message: str) -> dict[str, Any]:
    """A JSON-RPC error to `request`."""
    return {"jsonrpc": "2.0", "id": request.message["id"], "error": {"code": code, "message": message}}


def answered(request: Request, value: Any, *lines: str) -> bytes:
    """A whole answer with a result."""
    return whole(json.dumps(result(request, value)).encode(), 200, *lines)


# -- MCP

COMPLETE: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
TEXT: Final = {"content": [{"type": "text", "text": "done"}], "isError": False}
DISCOVERED: Final = {**COMPLETE, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}


def tool(name: str, **annotations: bool) -> dict[str, Any]:
    """A tool's listing."""
    hints = {"annotations": annotations} if annotations else {}
    return {"name": name, "inputSchema": {"type": "object"}, **hints}


TOOLS: Final = [tool("act"), tool("read", readOnlyHint=True), tool("put", idempotentHint=True)]


def modern(call: Behave | None = None, tools: Sequence[Mapping[str, Any]] = TOOLS) -> Behave:
    """A modern MCP server that answers `tools/call` by `call`."""

    def behave(request: Request) -> Steps:
        match request.message.get("method"):
            case "server/discover":
                return [answered(request, DISCOVERED)]
            case "tools/list":
                return [answered(request, {**COMPLETE, "tools": list(tools)})]
            case "tools/call" if call is not None:
                return call(request)
            case "tools/call":
                return [answered(request, {**TEXT, "resultType": "complete"})]
            case _:  # an answer of the gateway's to a request of the server's
                return [whole(b"", 202)]

    return behave


def legacy(
    call: Behave | None = None, tools: Sequence[Mapping[str, Any]] = TOOLS, session: str | None = "s-1"
) -> Behave:
    """A legacy MCP server: no `server/discover`, `initialize` with a session."""

    def behave(request: Request) -> Steps:
        match request.message.get("method"):
            case "server/discover":
                return [whole(b"", 400)]
            case "initialize":
                opened = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "old"}}
                return [answered(request, opened, *([f"mcp-session-id: {session}"] if session else []))]
            case "tools/list":
                return [answered(request, {"tools": list(tools)})]
            case "tools/call" if call is not None:
                return call(request)
            case "tools/call":
                return [answered(request, TEXT)]
            case _:
                return [whole(b"", 202)]

    return behave


async def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Wait until `condition` holds; False if it does not come to that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what a condition looks at sets no event
                await asyncio.sleep(0.002)
    return condition()
