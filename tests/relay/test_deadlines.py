"""Deadlines pause while a client is asked, and end what takes too long after that."""

import asyncio

import pytest
from msgspec import Raw
from starlette.types import Message

from gateway.mcp.jsonrpc import EMPTY_OBJECT
from gateway.relay.deadlines import CancelScopes, RequestKey, upstream_timeout
from gateway.upstream.base import Client, UpstreamResponse

SHORT_S = 0.06
"""More than one sweep."""


async def connected_forever() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_deadline_pauses_and_then_ends_the_request() -> None:
    scopes = CancelScopes()
    scope = scopes.open(connected_forever, SHORT_S, None)
    with scope.paused():
        await asyncio.sleep(3 * SHORT_S)
        with scope.paused():  # two inputs at once
            pass
        await asyncio.sleep(3 * SHORT_S)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    assert (scope.uncancel(), scope.reason) == (True, "timeout")
    scopes.close(scope)


async def test_a_cancellation_from_elsewhere_is_not_the_scopes() -> None:
    scopes, began = CancelScopes(), asyncio.Event()

    async def serve() -> bool:
        scope = scopes.open(connected_forever, 60, None)
        began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return scope.uncancel()
        return True

    serving = asyncio.create_task(serve())
    await began.wait()
    serving.cancel()
    assert await serving is False


async def test_a_key_that_fits_two_requests_cancels_neither() -> None:
    scopes, key = CancelScopes(), RequestKey("team", "alice", None, 1)
    first, second = (scopes.open(connected_forever, 60, key) for _ in range(2))
    scopes.cancel(key)
    assert (first.reason, second.reason) == (None, None)
    scopes.close(second)
    scopes.cancel(key)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.Event().wait()
    assert (first.uncancel(), first.reason) == (True, "cancelled")
    scopes.close(first)


async def ask_twice_and_wait(answered: list[str]) -> None:
    async def slow_person(method: str, params: Raw) -> UpstreamResponse:
        await asyncio.sleep(3 * SHORT_S)
        answered.append(method)
        return UpstreamResponse(params)

    async with upstream_timeout(SHORT_S, Client(EMPTY_OBJECT, slow_person)) as (client, _):
        assert client is not None
        await asyncio.gather(*(client.ask("roots/list", EMPTY_OBJECT) for _ in range(2)))
        await asyncio.Event().wait()


async def test_an_upstreams_timeout_pauses_while_the_client_is_asked() -> None:
    answered: list[str] = []
    with pytest.raises(TimeoutError):
        await ask_twice_and_wait(answered)
    assert len(answered) == 2
