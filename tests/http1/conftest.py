"""Servers of HTTP for the tests of the relay's protocol."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import uvloop

from gateway.http1.server import HttpProtocol
from tests.http1.server_rig import (
    HANG_S,
    App,
    Serve,
    Served,
    Server,
)
from tests.upstream.conftest import BOTH, LoopFactory


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


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    """The client runs on both loops; against the server, which has its own, one loop of the test is enough."""
    return {"asyncio": asyncio.new_event_loop} if "new_loop" in getattr(item, "fixturenames", ()) else BOTH
