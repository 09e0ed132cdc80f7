"""The members at work: real clients of the official SDK, which call through the gateway and count what they get."""

import asyncio
import logging
import random
import ssl
from typing import Final

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR, REQUEST_TIMEOUT, Implementation

from gateway.calls import ErrorType
from gateway.demo.counts import CountKey, Counts
from gateway.demo.fixtures import CallPattern, Member

AT_ONCE: Final = 8
"""Calls that one member has under way at most."""
RECONNECT_S: Final = 1.0
CALL_TIMEOUT_S: Final = 20.0
LOST: Final = "lost"
"""The outcome of a call whose answer never came: nobody can say whether the gateway recorded it."""
_NO_JSONRPC: Final = "Server returned an error response"
"""What the SDK's client makes of an HTTP error without a JSON-RPC body: the gateway's only one is 429."""


class Traffic:
    """Calls until it is stopped; `counts` are the clients' own."""

    def __init__(self, seed: int) -> None:
        self.counts = Counts()
        self._seed = seed
        self._tls = ssl.create_default_context()  # once: it takes 40 ms, and the clients need none
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # calls fail here on purpose

    async def simulate(self, member: Member, url: str, secret: str, stop: asyncio.Event) -> None:
        """Be one member until `stop`: connect, call, count; connect again if the connection is lost."""
        rng = random.Random(f"{self._seed}:{member.name}")  # noqa: S311 - repeatable on purpose
        headers = {"Authorization": f"Bearer {secret}"}
        timeout = httpx2.Timeout(CALL_TIMEOUT_S)
        while not stop.is_set():
            try:
                async with (
                    httpx2.AsyncClient(headers=headers, verify=self._tls, timeout=timeout) as http,
                    Client(
                        streamable_http_client(url, http_client=http),
                        mode=member.mode,
                        cache=None,
                        client_info=Implementation(name=member.name.partition(" ")[2].lower(), version="1.0"),
                        read_timeout_seconds=CALL_TIMEOUT_S,
                    ) as client,
                ):
                    await _wait_for_tools(client, member, stop)
                    await self._work(client, member, rng, stop)
            except* (MCPError, httpx2.HTTPError, OSError):
                await _pause(RECONNECT_S, stop)

    async def _work(self, client: Client, member: Member, rng: random.Random, stop: asyncio.Event) -> None:
        """Call at random moments, as often as the member does, until `stop` or until the connection is lost."""
        free = asyncio.Semaphore(AT_ONCE)
        broken = asyncio.Event()
        weights = [pattern.weight for pattern in member.patterns]

        async def one(pattern: CallPattern) -> None:
            try:
                error_type = await call(client, pattern)
            finally:
                free.release()
            self.counts[CountKey(member.workspace, member.token_id, error_type)] += 1
            if error_type == LOST:
                broken.set()

        async with asyncio.TaskGroup() as calls:
            while not stop.is_set() and not broken.is_set():
                await _pause(rng.expovariate(member.calls_per_s), stop)
                await free.acquire()
                calls.create_task(one(rng.choices(member.patterns, weights)[0]))


async def _wait_for_tools(client: Client, member: Member, stop: asyncio.Event) -> None:
    """List the tools until the member's own are there, as servers need a moment to start.

    A tool that the SDK's client has not seen listed makes it list all of them again after a call, which may be refused.
    """
    wanted = {pattern.tool for pattern in member.patterns if pattern.exists}
    while not stop.is_set() and wanted - {tool.name for tool in (await client.list_tools()).tools}:
        await _pause(RECONNECT_S, stop)


async def call(client: Client, pattern: CallPattern) -> str | None:
    """Make one call: None if it succeeded, else why it failed, in the words of `ErrorType`, or `lost`."""
    try:
        result = await client.call_tool(
            pattern.tool,
            dict(pattern.arguments),
            read_timeout_seconds=pattern.timeout_s,
            progress_callback=_ignore if "index" in pattern.tool else None,
        )
    except MCPError as error:
        return error_type_of(error)
    return ErrorType.TOOL_ERROR if result.is_error else None


def error_type_of(error: MCPError) -> str:
    """Why a call failed: the gateway names its own errors in their `data`; the SDK's client makes up the other ones."""
    if isinstance(error.data, dict) and "error_type" in error.data:
        return str(error.data["error_type"])
    if error.code == REQUEST_TIMEOUT:
        return ErrorType.CANCELLED
    if error.code == CONNECTION_CLOSED:
        return LOST
    if error.code == INTERNAL_ERROR and error.message == _NO_JSONRPC:
        return ErrorType.RATE_LIMITED
    return ErrorType.JSONRPC_ERROR


async def _ignore(progress: float, total: float | None, message: str | None) -> None:
    """Whoever asks for progress gets a stream."""


async def _pause(seconds: float, stop: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
