"""Bodies, answers, and applications that fail, over the relay's HTTP/1.1. RFC 9110; ASGI 2.3."""

from typing import Final

import pytest

from tests.http1.server_rig import Hasty, Serve, get, post, stands_still, until

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

        assert (await client.answer()).status == 413
        assert (await client.ask(get())).body == b"GET  0 "  # the rest of the body is passed over


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


async def test_an_answer_without_content_has_no_body(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        answered = await client.ask(get("/empty"))
        assert answered.status == 204
        assert answered.body == b""
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


async def test_a_client_that_does_not_read_is_cut_off(served: Serve) -> None:
    async with served(Hasty) as http:
        client = await http.connect(limit=1024)
        client.writer.write(get("/flood"))

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
    "/raises": "on purpose",
    "/returns": "returned without starting response",
}
MISTAKES: Final = {
    "/splits": "Invalid HTTP header value",
    "/lies": "shorter than Content-Length",
}


@pytest.mark.parametrize("path", FAILURES)
async def test_a_request_that_fails_has_an_answer(served: Serve, path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as http:
        client = await http.connect()

        answered = await client.ask(get(path))

        assert answered.status == 500
        assert answered.headers["connection"] == "close"
        assert answered.body == b"Internal Server Error"
        assert await client.rest() == b""
        assert FAILURES[path] in caplog.text


@pytest.mark.parametrize("path", MISTAKES)
async def test_an_answer_that_cannot_be_sent_is_cut(served: Serve, path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get(path))

        received = await client.rest()

        assert b"set-cookie" not in received
        assert not received or received.endswith(b"content-length: 9\r\n\r\nshort")
        await until(lambda: MISTAKES[path] in caplog.text)


async def test_an_answer_that_fails_midway_is_not_taken_for_whole(served: Serve) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get("/raises-midway"))

        assert (await client.rest()).endswith(b"\r\n\r\n4\r\nhalf\r\n")


@pytest.mark.parametrize("path", ["/stops-short", "/goes-too-far"])
async def test_an_answer_that_is_not_as_long_as_it_says_is_cut(served: Serve, path: str) -> None:
    async with served() as http:
        client = await http.connect()
        client.writer.write(get(path))

        assert (await client.rest()).endswith(b"\r\n\r\nhalf")


async def test_an_application_may_fail_after_its_answer(served: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async with served() as http:
        client = await http.connect()
        assert (await client.ask(get("/raises-after"))).body == b"whole"
        assert await client.rest() == b""
        assert "on purpose" in caplog.text
