"""The connections to one origin: how many, who is next, and that every place comes back."""

import asyncio
import contextlib
import socket

import pytest

from gateway.http1.client import ConnectionLimits, ConnectionLostError, HttpResponse, MalformedResponseError
from gateway.http1.pool import ConnectError, Pool
from tests.http1.client_rig import ASK, HANG_S, OK, ask, in_turn, pool_of
from tests.http1.raw import (
    Do,
    Step,
    eventually,
    raw,
)


async def test_at_the_bound_the_next_connection_that_is_put_down_is_taken() -> None:
    async with raw(lambda _: [OK]) as server, pool_of(server, most=2) as pool:
        responses = await asyncio.gather(*(ask(pool) for _ in range(50)))

        assert {response.body for response in responses} == {b"fine"}
        assert server.accepted == 2


async def test_who_waits_for_a_connection_comes_before_who_asks_later() -> None:
    async with raw(lambda _: [OK]) as server, pool_of(server, most=1) as pool:
        order: list[str] = []

        async def one(name: str) -> None:
            await ask(pool)
            order.append(name)

        held = await pool.connect()
        await held.send(ASK)
        waiting = [asyncio.create_task(one("first")), asyncio.create_task(one("second"))]
        assert await eventually(lambda: len(pool._waiters) == 2)
        pool.release(held)
        late = pool.take()  # in the very moment in which it was put down
        if late is not None:
            await late.send(ASK)
            waiting.append(asyncio.create_task(one("last")))
            await asyncio.sleep(0)
            pool.release(late)
        await asyncio.gather(*waiting)

        assert order[:2] == ["first", "second"]


async def test_a_waiter_that_is_cancelled_passes_its_turn_on() -> None:
    async with raw(lambda _: [OK]) as server, pool_of(server, most=1) as pool:
        held = await pool.connect()
        await held.send(ASK)
        gone, waiting = asyncio.create_task(ask(pool)), asyncio.create_task(ask(pool))
        assert await eventually(lambda: len(pool._waiters) == 2)
        pool.release(held)  # it is its turn now, but it has not run yet
        gone.cancel()

        assert (await waiting).body == b"fine"
        with pytest.raises(asyncio.CancelledError):
            await gone


async def test_a_waiter_that_is_cancelled_before_its_turn_is_passed_over() -> None:
    async with raw(lambda _: [OK]) as server, pool_of(server, most=1) as pool:
        held = await pool.connect()
        await held.send(ASK)
        gone, waiting = asyncio.create_task(ask(pool)), asyncio.create_task(ask(pool))
        assert await eventually(lambda: len(pool._waiters) == 2)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        pool.release(held)

        assert (await waiting).body == b"fine"


async def test_an_exchange_that_failed_gives_its_place_back() -> None:
    answers = in_turn([Do.CLOSE], [b"garbage"], [OK])
    async with raw(lambda _: next(answers)) as server, pool_of(server, most=1) as pool:
        outcomes = await asyncio.gather(*(ask(pool) for _ in range(3)), return_exceptions=True)

        assert [type(outcome) for outcome in outcomes] == [ConnectionLostError, MalformedResponseError, HttpResponse]


async def test_a_connection_that_is_refused_gives_its_place_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    pool = Pool("127.0.0.1", port, None, max_connections=1)
    async with asyncio.timeout(HANG_S):
        for _ in range(3):
            with pytest.raises(ConnectError, match=f"no connection to 127.0.0.1:{port}: .*refused"):
                await pool.connect()


@pytest.mark.parametrize("goodbye", [Do.CLOSE, Do.RESET])
async def test_an_upstream_that_closes_every_connection_at_once_fails_every_request_and_blocks_none(
    goodbye: Step,
) -> None:
    async with raw(lambda _: [OK], greet=[goodbye]) as server, pool_of(server, most=1) as pool:
        for _ in range(5):
            with pytest.raises((ConnectError, ConnectionLostError)):
                await ask(pool)


async def test_a_connection_that_was_lost_before_its_first_request_says_so() -> None:
    async with raw(lambda _: [OK], greet=[Do.CLOSE]) as server, pool_of(server) as pool:
        connection = await pool.connect()
        assert await eventually(lambda: connection.closed)

        with pytest.raises(ConnectionLostError, match="before it answered"):
            await connection.send(ASK)
        pool.release(connection)


async def test_closing_the_pool_ends_what_is_under_way() -> None:
    async with raw(lambda _: [Do.HOLD]) as server, pool_of(server) as pool:
        asking = asyncio.create_task(ask(pool))
        assert await eventually(lambda: len(server.requests) == 1)

        pool.close()

        with pytest.raises(ConnectionLostError):
            await asking
        assert await eventually(lambda: server.open == 0)


async def test_a_cancelled_exchange_closes_its_connection() -> None:
    async with raw(lambda _: [Do.HOLD]) as server, pool_of(server) as pool:
        asking = asyncio.create_task(ask(pool))
        assert await eventually(lambda: len(server.requests) == 1)

        asking.cancel()

        assert await eventually(lambda: server.open == 0)


async def test_a_host_that_does_not_take_connections_is_given_up() -> None:
    limits = ConnectionLimits(connect_s=0.05)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with contextlib.ExitStack() as stack:
            for _ in range(4):  # the kernel's queue is full: what comes now gets no answer
                filler = stack.enter_context(socket.socket())
                filler.settimeout(0)
                filler.connect_ex(full.getsockname())
            pool = Pool("127.0.0.1", full.getsockname()[1], None, max_connections=1, limits=limits)
            for _ in range(2):
                with pytest.raises(ConnectError, match=r"within 0\.05 s"):
                    async with asyncio.timeout(HANG_S):
                        await pool.connect()
