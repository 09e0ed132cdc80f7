"""Requests to an `HttpUpstream`, as the relay makes them."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Raw as RawJson

from gateway.config import HttpServer
from gateway.http1.client import ConnectionLimits
from gateway.http1.pool import DEFAULT_LIMITS, Pool
from gateway.mcp import jsonrpc
from gateway.upstream.base import Notify, UpstreamRequest, UpstreamResponse, UpstreamTimings
from gateway.upstream.http import HttpUpstream
from tests.http1.raw import Raw

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
QUICK: Final = {"reconnect_s": 0.01}
HANG_S: Final = 60.0
"""A test that waits longer than this hangs."""


@contextlib.asynccontextmanager
async def upstream_of(
    server: Raw,
    *,
    most: int = 512,
    limits: ConnectionLimits = DEFAULT_LIMITS,
    tls: ssl.SSLContext | None = None,
    timings: Mapping[str, float] = NOTHING,
    max_sessions: int = 256,
    **settings: Any,
) -> AsyncIterator[HttpUpstream]:
    """The upstream, with other `timings` than those of `QUICK`."""
    pools: list[Pool] = []

    def pool_for(host: str, port: int, secure: bool) -> Pool:  # noqa: FBT001 - the relay's own signature
        pools.append(Pool(host, port, tls if secure else None, max_connections=most, limits=limits))
        return pools[-1]

    upstream = HttpUpstream(
        "files",
        HttpServer(url=server.url, **settings),
        pool_for,
        UpstreamTimings(**{**QUICK, **timings}),
        max_sessions=max_sessions,
    )
    try:
        async with asyncio.timeout(HANG_S):
            yield upstream
    finally:
        await upstream.close()
        for pool in pools:
            pool.close()


def call(
    name: str = "act",
    *,
    repeatable: bool = False,
    notify: Notify | None = None,
    meta: Mapping[str, Any] = NOTHING,
) -> UpstreamRequest:
    """A `tools/call`."""
    return UpstreamRequest(
        "tools/call",
        {"name": name, "arguments": {"path": "/tmp"}},  # noqa: S108 - an argument, nothing is opened
        name=name,
        repeatable=repeatable,
        notify=notify,
        meta={key: jsonrpc.raw(value) for key, value in meta.items()},
    )


def value(reply: UpstreamResponse) -> Any:
    """A result, decoded."""
    assert isinstance(reply.result, RawJson)
    return msgspec.json.decode(reply.result)
