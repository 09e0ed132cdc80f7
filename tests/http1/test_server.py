"""The relay's HTTP/1.1 over real sockets: what is a request, and what is none. RFC 9112; ASGI 2.3."""

import asyncio
import email.utils
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest

from gateway.http1.server import MAX_HEAD_BYTES, HttpProtocol
from tests.http1.server_rig import (
    CHUNKED_POST,
    HANG_S,
    HOST,
    Serve,
    get,
    post,
    refused,
    until,
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
            "state": {},
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
    "empty lines before it": (b"\r\n\r\n" + get("/"), b"GET  0 "),
    "an empty line after it": (get("/") + b"\r\n", b"GET  0 "),
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


async def test_of_two_upgrades_at_once_the_first_is_answered(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(post(b"abc", "/", "Connection: Upgrade", "Upgrade: h2c") * 2)

        assert (await client.answer()).body == b"POST  3 abc"
        assert await client.rest() == b""


async def test_trailers_are_no_headers(served: Serve) -> None:
    async with served() as http:
        await (await http.connect()).ask(CHUNKED_POST)
        assert b"x-trailer" not in dict(http.app.scopes[0]["headers"])


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
    "a coding that only looks like chunked": (refused(b"Transfer-Encoding: \x0bchunked\r\n", b"0\r\n\r\n"), 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "a chunk's size that is none": (refused(b"Transfer-Encoding: chunked\r\n", b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "a negative chunk": (refused(b"Transfer-Encoding: chunked\r\n", b"-1\r\na\r\n0\r\n\r\n"), 400),
    "a chunk that is longer than it says": (refused(b"Transfer-Encoding: chunked\r\n", b"1\r\nab\r\n0\r\n\r\n"), 400),
    "a chunk's size that overflows": (refused(b"Transfer-Encoding: chunked\r\n", b"f" * 17 + b"\r\na\r\n"), 400),
    "a bare LF in a chunk's line": (refused(b"Transfer-Encoding: chunked\r\n", b"1;a\nX\r\na\r\n0\r\n\r\n"), 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two hosts": (refused(b"Host: other\r\n"), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "another version": (get(version="1.2"), 400),
    "a method in small letters": (b"post / HTTP/1.1\r\nHost: relay\r\n\r\n", 400),
    "no method that there is": (b"BREW / HTTP/1.1\r\nHost: relay\r\n\r\n", 400),
    "CONNECT": (b"CONNECT relay:80 HTTP/1.1\r\nHost: relay\r\n\r\n", 400),
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
        assert "/smuggled" not in {scope["path"] for scope in http.app.scopes}  # chunks are wrong after a right head
        assert all(message["type"] == "http.disconnect" for message in http.app.received)


async def test_a_mistake_in_a_later_chunk_ends_the_request(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(refused(b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n"))
        await until(lambda: http.app.received)

        answered = await client.ask(b"what is this?\r\n")

        assert answered.status == 400
        assert await client.rest() == b""
        await until(lambda: http.app.events["disconnected in the body"])


@pytest.mark.parametrize("begun", [b"1;", b"0\r\nX: "], ids=["a chunk's extension", "trailers"])
async def test_what_is_no_body_and_does_not_end_is_refused(served: Serve, begun: bytes) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(refused(b"Transfer-Encoding: chunked\r\n", begun))
        for _ in range(20):
            client.writer.write(b"a" * 4096)
            await asyncio.sleep(0)

        assert (await client.answer()).status == 431
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
