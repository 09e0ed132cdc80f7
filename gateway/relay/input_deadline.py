"""A limit on how long a server may take that stands still while its client is asked: behind a client is a person."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Raw

from gateway.upstream.base import Client, UpstreamResponse


@asynccontextmanager
async def upstream_deadline(
    seconds: float, client: Client | None
) -> AsyncIterator[tuple[Client | None, asyncio.Timeout]]:
    """The client as it is to be asked within the block, and the limit.

    Raises:
        TimeoutError: the block took longer, the time apart that its client took.
    """
    async with asyncio.timeout(seconds) as limit:
        yield (_Asked(client, limit).client if client is not None else None), limit


class _Asked:
    def __init__(self, client: Client, limit: asyncio.Timeout) -> None:
        self._ask = client.ask
        self._limit = limit
        self._asking = 0
        self._left = 0.0
        self.client = Client(client.capabilities, self.ask, client.log_level)

    async def ask(self, method: str, params: Raw) -> UpstreamResponse:
        """Ask, while the time stands still."""
        loop = asyncio.get_running_loop()
        if self._asking == 0:
            self._left = (self._limit.when() or loop.time()) - loop.time()
            self._limit.reschedule(None)
        self._asking += 1
        try:
            return await self._ask(method, params)
        finally:
            self._asking -= 1
            if self._asking == 0 and not self._limit.expired():
                self._limit.reschedule(loop.time() + self._left)
