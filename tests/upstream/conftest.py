"""Processes and sockets behave differently under different event loops: upstreams are tested under both."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from gateway.config import StdioServer
from gateway.upstream.base import UpstreamTimings
from gateway.upstream.stdio import StdioUpstream
from tests.upstream.stdio_rig import Start

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

BOTH: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    del item
    return BOTH


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    started: list[StdioUpstream] = []

    def make(server: StdioServer, *, max_processes: int = 64, **timings: float) -> StdioUpstream:
        started.append(StdioUpstream("files", server, UpstreamTimings(**timings), max_processes=max_processes))
        return started[-1]

    yield make
    for upstream in started:
        await upstream.close()
