"""The HTTP/1.1 client, against upstreams that keep to HTTP and against ones that do not."""

import asyncio
import socket

import pytest

from gateway.http1.client import ConnectionLimits, ConnectionLostError, MalformedResponseError
from gateway.http1.pool import Pool
from tests.http1.client_rig import ASK, HANG_S, OK, ask, in_turn, pool_of
from tests.http1.raw import (
    Do,
    Drip,
    Step,
    Steps,
    chunk,
    chunked,
    eventually,
    head,
    raw,
    whole,
)

# -- answers


@pytest.mark.parametrize(
    ("steps", "status", "body", "kept"),
    [
        pytest.param([whole(b"fine")], 200, b"fine", True, id="with a length"),
        pytest.param([whole(b"")], 200, b"", True, id="with nothing in it"),
        pytest.param([chunked(b"a whole answer", 5)], 200, b"a whole answer", True, id="in chunks"),
        pytest.param([Drip(chunked(b"a whole answer", 1))], 200, b"a whole answer", True, id="in chunks, byte by byte"),
        pytest.param([Drip(whole(b"fine"))], 200, b"fine", True, id="byte by byte"),
        pytest.param([head() + b"until the end", Do.CLOSE], 200, b"until the end", False, id="until the end"),
        pytest.param([head() + b"until", b" the end", Do.CLOSE], 200, b"until the end", False, id="until a later end"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", OK], 200, b"fine", True, id="after 100 Continue"),
        pytest.param(
            [b"HTTP/1.1 103 Hints\r\nlink: x\r\n\r\n" * 3, OK], 200, b"fine", True, id="after 103 Early Hints"
        ),
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b"", True, id="204, which has no body"),
        pytest.param([whole(b"no", 500)], 500, b"no", True, id="an error"),
        pytest.param([whole(b"fine", 200, "connection: close")], 200, b"fine", False, id="the last on its connection"),
        pytest.param([b"HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\nfine"], 200, b"fine", False, id="HTTP/1.0"),
    ],
)
async def test_an_answer_in_any_form_is_read_whole(steps: Steps, status: int, body: bytes, *, kept: bool) -> None:
    async with raw(lambda _: steps) as server, pool_of(server) as pool:
        for _ in range(2):
            response = await ask(pool)
            assert (response.status, response.body, response.streaming) == (status, body, False)

        assert server.accepted == (1 if kept else 2)


async def test_headers_are_read_in_lower_case_and_none_of_them_comes_from_an_answer_before() -> None:
    answers = in_turn([whole(b"", 200, "X-First: 1", "MCP-Session-Id: s")], [whole(b"", 200, "X-Second: 2")])
    async with raw(lambda _: next(answers)) as server, pool_of(server) as pool:
        first, second = await ask(pool), await ask(pool)

    assert first.headers[b"x-first"] == b"1"
    assert first.headers[b"mcp-session-id"] == b"s"
    assert b"x-first" not in second.headers
    assert second.headers[b"x-second"] == b"2"


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([head(200, "content-length: 100") + b"half", Do.CLOSE], id="half a body"),
        pytest.param([head(200, "transfer-encoding: chunked") + b"64\r\nhalf", Do.CLOSE], id="half a chunk"),
        pytest.param([head(200, "transfer-encoding: chunked") + chunk(b"one"), Do.CLOSE], id="no last chunk"),
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-le", Do.CLOSE], id="half a head"),
        pytest.param([head() + b"until", Do.RESET], id="until the end, which is a reset"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", Do.CLOSE], id="nothing after 100 Continue"),
    ],
)
async def test_an_answer_that_was_cut_is_none(steps: Steps) -> None:
    async with raw(lambda _: steps) as server, pool_of(server) as pool:
        with pytest.raises(ConnectionLostError, match="in the middle of its answer") as lost:
            await ask(pool)

        assert lost.value.began
        assert await eventually(lambda: server.open == 0)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x16", id="a TLS alert"),
        pytest.param(b"HTTP/1.1 banana\r\n\r\n", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", id="no length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", id="no chunk"),
        pytest.param(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n", id="an upgrade"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nfine", id="two lengths"),
    ],
)
async def test_what_is_no_http_is_said_to_be_none_and_its_connection_is_closed(answer: bytes) -> None:
    async with raw(lambda _: [answer, Do.HOLD]) as server, pool_of(server) as pool:
        with pytest.raises(MalformedResponseError):
            await ask(pool)

        assert await eventually(lambda: server.open == 0)


class Endless:
    """Sends one thing for ever, as fast as the other side takes it; counts the bytes."""

    def __init__(self, begin: bytes, again: bytes) -> None:
        self._begin, self._again = begin, again
        self.sent = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"{}")
            writer.write(self._begin)
            while True:
                writer.write(self._again)
                self.sent += len(self._again)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(Endless(b"HTTP/1.1 200 OK\r\n", b"x-more: of the same\r\n" * 500), id="headers"),
        pytest.param(Endless(b"HTTP/1.1 200 OK\r\nx-long: ", b"x" * 10000), id="one header"),
        pytest.param(Endless(b"", b"HTTP/1.1 103 Hints\r\n\r\n" * 500), id="answers before the answer"),
        pytest.param(Endless(head(200, "content-length: 100000000"), b"x" * 10000), id="a body with a length"),
        pytest.param(Endless(head(200, "transfer-encoding: chunked"), chunk(b"x" * 10000)), id="chunks"),
        pytest.param(Endless(head(200, "transfer-encoding: chunked") + b"1;", b"x" * 10000), id="a chunk's extension"),
        pytest.param(Endless(head(200, "transfer-encoding: chunked") + b"0\r\nx-t: ", b"x" * 10000), id="a trailer"),
        pytest.param(Endless(head(), b"x" * 10000), id="a body until the end"),
    ],
)
async def test_an_answer_that_never_ends_is_given_up_before_it_fills_the_memory(
    endless: Endless,
) -> None:
    listener = await asyncio.start_server(endless, "127.0.0.1", 0)
    pool = Pool(
        "127.0.0.1", listener.sockets[0].getsockname()[1], None, limits=ConnectionLimits(response_bytes=300_000)
    )

    with pytest.raises(MalformedResponseError, match="more than"):
        async with asyncio.timeout(HANG_S):
            await ask(pool)

    assert endless.sent < 20_000_000  # what the kernel's buffers take is sent, not received
    listener.close()
    pool.close()


# -- kept connections


async def test_a_connection_is_kept_for_the_next_exchange() -> None:
    async with raw(lambda _: [OK]) as server, pool_of(server) as pool:
        for _ in range(5):
            await ask(pool)

        assert server.accepted == 1


@pytest.mark.parametrize("goodbye", [Do.CLOSE, Do.RESET])
async def test_a_connection_that_the_upstream_closed_between_two_requests_costs_nothing(goodbye: Step) -> None:
    answers = in_turn([OK, goodbye], [OK])
    async with raw(lambda _: next(answers)) as server, pool_of(server) as pool:
        await ask(pool)
        assert await eventually(lambda: server.closed == 1)

        assert (await ask(pool)).body == b"fine"

        assert [request.connection for request in server.requests] == [0, 1]


async def test_a_connection_whose_end_has_come_but_was_not_read_yet_is_not_taken() -> None:
    """The loop has not run since the upstream closed: only the socket itself knows."""
    listener = socket.create_server(("127.0.0.1", 0))
    pool = Pool("127.0.0.1", listener.getsockname()[1], None)
    connection = await pool.connect()
    peer, _ = listener.accept()
    answer = connection.send(ASK)
    peer.recv(65536)
    peer.sendall(OK)
    await answer
    pool.release(connection)

    peer.close()

    assert pool.take() is None
    listener.close()
    pool.close()


@pytest.mark.parametrize("goodbye", [Do.CLOSE, Do.RESET])
async def test_a_kept_connection_that_closes_when_the_request_comes_is_lost_before_an_answer(goodbye: Step) -> None:
    answers = in_turn([OK], [goodbye])
    async with raw(lambda _: next(answers)) as server, pool_of(server) as pool:
        await ask(pool)

        with pytest.raises(ConnectionLostError, match="before it answered") as lost:
            await ask(pool)

        assert not lost.value.began
        assert [request.connection for request in server.requests] == [0, 0]


@pytest.mark.parametrize("where", ["with the first", "right behind the first", "between two requests"])
async def test_a_second_answer_is_never_the_next_requests(where: str) -> None:
    go, later = asyncio.Event(), whole(b"the second answer to the first request")
    turns: dict[str, Steps] = {
        "with the first": [OK + later],
        "right behind the first": [OK, later],
        "between two requests": [OK, go, later],
    }
    answers = in_turn(turns[where], [whole(b"the answer to the second request")])
    async with raw(lambda _: next(answers)) as server, pool_of(server) as pool:
        assert (await ask(pool)).body == b"fine"
        go.set()
        if where == "between two requests":
            assert await eventually(lambda: server.open == 0)  # said without having been asked

        assert (await ask(pool)).body == b"the answer to the second request"


@pytest.mark.parametrize("said", [b"x", b"\r\n", whole(b"x"), b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
async def test_a_kept_connection_on_which_the_upstream_says_something_is_not_used(said: bytes) -> None:
    go = asyncio.Event()
    answers = in_turn([OK, go, said], [whole(b"new")])
    async with raw(lambda _: next(answers)) as server, pool_of(server) as pool:
        await ask(pool)
        go.set()
        assert await eventually(lambda: server.open == 0)

        assert (await ask(pool)).body == b"new"


@pytest.mark.parametrize("line", ["keep-alive: timeout=1", "keep-alive: timeout=1, max=100", "Keep-Alive: timeout=0"])
async def test_a_connection_that_the_upstream_is_about_to_close_is_not_kept(line: str) -> None:
    async with raw(lambda _: [whole(b"fine", 200, line)]) as server, pool_of(server) as pool:
        await ask(pool)
        await ask(pool)

        assert server.accepted == 2


@pytest.mark.parametrize(
    "line", ["keep-alive: timeout=60", "keep-alive: timeout=", "keep-alive: timeout=\xb2", "keep-alive: max=2"]
)
async def test_a_connection_that_the_upstream_keeps_is_kept(line: str) -> None:
    answer = whole(b"fine").replace(b"\r\n", b"\r\n" + line.encode("latin-1") + b"\r\n", 1)
    async with raw(lambda _: [answer]) as server, pool_of(server) as pool:
        await ask(pool)
        await ask(pool)

        assert server.accepted == 1


async def test_a_connection_that_has_rested_too_long_is_not_taken() -> None:
    async with raw(lambda _: [OK]) as server, pool_of(server, limits=ConnectionLimits(idle_s=0)) as pool:
        await ask(pool)
        await ask(pool)

        assert server.accepted == 2
        assert await eventually(lambda: server.open == 1)
