"""Exchanges over the HTTP client alone, without MCP."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Final

from gateway.http1.client import Connection, ConnectionLimits, HttpResponse
from gateway.http1.pool import DEFAULT_LIMITS, Pool
from tests.http1.raw import Raw, Steps, whole

ASK: Final = b"POST /mcp HTTP/1.1\r\nhost: upstream\r\ncontent-length: 2\r\n\r\n{}"
OK: Final = whole(b"fine")
HANG_S: Final = 60.0
"""A test that waits longer than this hangs."""


@contextlib.asynccontextmanager
async def pool_of(
    server: Raw,
    *,
    tls: ssl.SSLContext | None = None,
    most: int = 512,
    limits: ConnectionLimits = DEFAULT_LIMITS,
) -> AsyncIterator[Pool]:
    pool = Pool("127.0.0.1", server.port, tls, max_connections=most, limits=limits)
    try:
        async with asyncio.timeout(HANG_S):
            yield pool
    finally:
        pool.close()


async def ask(pool: Pool) -> HttpResponse:
    """One whole exchange."""
    connection = pool.take() or await pool.connect()
    try:
        return await connection.send(ASK)
    finally:
        pool.release(connection)


async def begin(pool: Pool) -> Connection:
    """A connection whose answer streams."""
    connection = pool.take() or await pool.connect()
    response = await connection.send(ASK)
    assert response.streaming
    return connection


def in_turn(*turns: Steps) -> Iterator[Steps]:
    """The steps of the first request, of the second, …; the last for all that follow."""
    yield from turns
    while True:
        yield turns[-1]
