"""How long a connection of the relay lives, and in which order it serves. RFC 9112, section 9."""

import asyncio
import contextlib
import logging

import pytest

from tests.http1.server_rig import (
    CHUNKED_POST,
    Hasty,
    Serve,
    get,
    post,
    stands_still,
    until,
)

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
        assert ("transfer-encoding" in answered.headers) is (b"HTTP/1.1" in request_ and b"/closes" in request_)
        assert answered.body in {b"GET  0 ", b"bye", b"one,two,three"}
        assert await client.rest() == b""


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


@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (post(b"abc")[:-1], 408),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
    ],
    ids=["no request", "a body that does not end", "a bad chunk"],
)
async def test_a_client_that_never_closes_is_cut_off(served: Serve, begun: bytes, status: int) -> None:
    async with served(Hasty) as http:
        client = await http.connect()
        assert (await client.ask(begun)).status == status
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


async def test_no_more_is_read_than_the_next_requests(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/watch"))
        await until(lambda: http.app.events["watching"])
        client.writer.write(get() * 500_000)
        await stands_still(client.writer.transport.get_write_buffer_size)
        assert client.writer.transport.get_write_buffer_size() > 0
        client.reset()


async def test_what_is_wrong_ends_the_connection_after_what_was_right_is_answered(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/?first") + get("/?second") + b"nonsense\r\n\r\n" + get("/?never"))

        assert [(await client.answer()).status for _ in range(2)] == [200, 200]
        assert await client.rest() == b""
        assert len(http.app.scopes) == 2


async def test_nothing_is_served_after_the_last_request(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/?last", "Connection: close") + get("/?never"))

        assert (await client.answer()).body == b"GET last 0 "
        assert await client.rest() == b""
        assert len(http.app.scopes) == 1


async def test_what_follows_chunks_at_once_is_answered_too(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(CHUNKED_POST + get("/?next") + b"nonsense\r\n\r\n")

        assert (await client.answer()).body == b"POST chunked 5 abcde"
        assert (await client.answer()).body == b"GET next 0 "
        assert await client.rest() == b""
        assert len(http.app.scopes) == 2


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


async def test_a_mistake_in_a_later_body_does_not_take_the_response_of_the_request_before_it(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(post(b"ab", "/wait"))
        client.writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n")
        await until(lambda: http.app.events["waiting"])
        http.server.let_go()

        assert (await client.answer()).body == b"waited"
        assert await client.rest() == b""
