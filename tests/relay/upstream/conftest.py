"""Processes behave differently under different event loops, so what starts them is tested under both."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

PLAIN: Mapping[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
BOTH: Mapping[str, LoopFactory] = {**PLAIN, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, LoopFactory]:
    return BOTH if item.path.name.startswith("test_stdio") else PLAIN
