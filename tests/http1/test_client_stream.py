"""Event streams: read as they come, cut, too fast for their reader, put down before their end."""

import asyncio

import pytest

from gateway.http1.client import Connection, ConnectionLimits, ConnectionLostError, MalformedResponseError
from tests.http1.client_rig import OK, ask, begin, in_turn, pool_of
from tests.http1.raw import (
    SSE_END,
    SSE_HEAD,
    Do,
    Drip,
    Step,
    Steps,
    chunk,
    eventually,
    head,
    raw,
)

TYPE = "content-type: text/event-stream"


async def streamed(connection: Connection) -> bytes:
    return b"".join([piece async for piece in connection.stream()])


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        pytest.param([SSE_HEAD + chunk(b"one") + chunk(b"two") + SSE_END], True, id="at once"),
        pytest.param([Drip(SSE_HEAD + chunk(b"one") + chunk(b"two") + SSE_END)], True, id="byte by byte"),
        pytest.param([head(200, TYPE), b"one", b"two", Do.CLOSE], False, id="to the end"),
        pytest.param([head(200, TYPE, "content-length: 6") + b"onetwo"], True, id="with a length"),
        pytest.param(
            [head(200, "Content-Type: Text/Event-Stream; charset=utf-8", "content-length: 6"), b"onetwo"],
            True,
            id="its type written otherwise",
        ),
    ],
)
async def test_an_event_stream_is_read_as_it_comes_and_its_connection_kept(steps: Steps, *, kept: bool) -> None:
    async with raw(lambda _: steps) as server, pool_of(server) as pool:
        for _ in range(2):
            connection = await begin(pool)
            assert await streamed(connection) == b"onetwo"
            pool.release(connection)

        assert server.accepted == (1 if kept else 2)


async def test_an_event_stream_is_handed_over_before_it_ends() -> None:
    go = asyncio.Event()
    async with raw(lambda _: [SSE_HEAD + chunk(b"one"), go, chunk(b"two"), SSE_END]) as server, pool_of(server) as pool:
        stream = (await begin(pool)).stream()

        assert await anext(stream) == b"one"
        go.set()
        assert await anext(stream) == b"two"
        assert [piece async for piece in stream] == []


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        pytest.param([SSE_HEAD + chunk(b"one"), Do.CLOSE], ConnectionLostError, id="closed"),
        pytest.param([SSE_HEAD + chunk(b"one"), Do.RESET], ConnectionLostError, id="reset"),
        pytest.param([SSE_HEAD + chunk(b"one"), b"garbage\r\n", Do.HOLD], MalformedResponseError, id="garbage"),
        pytest.param(
            [SSE_HEAD + chunk(b"one") + b"garbage\r\n", Do.HOLD], MalformedResponseError, id="garbage at once"
        ),
    ],
)
async def test_an_event_stream_that_was_cut_says_so_after_what_had_come(steps: Steps, error: type[Exception]) -> None:
    async with raw(lambda _: steps) as server, pool_of(server) as pool:
        connection = await begin(pool)
        stream = connection.stream()

        assert await anext(stream) == b"one"
        assert await eventually(lambda: connection.closed)  # however late the reader comes
        with pytest.raises(error):
            await anext(stream)
        pool.release(connection)
        assert await eventually(lambda: server.open == 0)


async def test_a_reader_that_is_slower_than_the_stream_slows_the_upstream_down() -> None:
    big = b"x" * 100_000
    steps: Steps = [SSE_HEAD, *([chunk(big)] * 200), SSE_END]
    async with raw(lambda _: steps) as server, pool_of(server) as pool:
        connection = await begin(pool)
        assert await eventually(lambda: connection._paused)

        assert connection._received < 2 * ConnectionLimits().buffered_bytes
        assert len(await streamed(connection)) == 200 * len(big)


async def test_a_stream_whose_end_nobody_read_does_not_stop_the_next_answer_on_its_connection() -> None:
    """Reading was paused when it ended."""
    answers = in_turn([SSE_HEAD + chunk(b"x" * 5000) + SSE_END], [OK])
    limits = ConnectionLimits(buffered_bytes=1000)
    async with raw(lambda _: next(answers)) as server, pool_of(server, limits=limits) as pool:
        connection = await begin(pool)
        assert await eventually(lambda: connection._complete)
        pool.release(connection)

        assert (await ask(pool)).body == b"fine"
        assert server.accepted == 1


async def test_a_stream_that_ends_soon_after_it_was_put_down_leaves_its_connection_to_the_next() -> None:
    go = asyncio.Event()
    answers = in_turn([SSE_HEAD + chunk(b"one"), go, chunk(b"more"), SSE_END], [OK])
    async with raw(lambda _: next(answers)) as server, pool_of(server) as pool:
        pool.release(await begin(pool))
        assert pool.take() is None
        go.set()
        assert await eventually(lambda: bool(pool._idle))

        assert (await ask(pool)).body == b"fine"
        assert server.accepted == 1


@pytest.mark.parametrize("goodbye", [Do.HOLD, Do.CLOSE, Do.RESET])
async def test_a_stream_that_was_put_down_and_does_not_end_well_gives_its_place_back(goodbye: Step) -> None:
    limits = ConnectionLimits(linger_s=0.02)
    answers = in_turn([SSE_HEAD + chunk(b"one"), goodbye], [OK])
    async with raw(lambda _: next(answers)) as server, pool_of(server, most=1, limits=limits) as pool:
        pool.release(await begin(pool))

        assert (await ask(pool)).body == b"fine"
        assert server.accepted == 2
        assert await eventually(lambda: server.open == 1)


async def test_a_stream_that_was_put_down_and_goes_on_for_ever_is_not_kept_in_memory() -> None:
    limits = ConnectionLimits(linger_s=0.1)
    steps: Steps = [SSE_HEAD + chunk(b"one"), *([chunk(b"x" * 100_000)] * 1000)]
    async with raw(lambda _: steps) as server, pool_of(server, limits=limits) as pool:
        connection = await begin(pool)
        pool.release(connection)
        assert await eventually(lambda: server.open == 0)

        assert not connection._chunks
