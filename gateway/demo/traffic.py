"""The members' traffic: clients of the official SDK, which call through the gateway and count the outcomes."""

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
from gateway.process import wait_at_most

MAX_IN_FLIGHT: Final = 8
"""Concurrent calls of one member."""
RECONNECT_S: Final = 1.0
CALL_TIMEOUT_S: Final = 20.0
LOST: Final = "lost"
"""The outcome of a call without an answer: whether the gateway recorded it is unknown."""
_HTTP_ERROR: Final = "Server returned an error response"
"""The SDK's message for an HTTP error without a JSON-RPC body; from the gateway it is always 429."""


class Traffic:
    """Calls until it is stopped; `counts` are the clients' own, and `first_call` is set when a call has ended."""

    def __init__(self, seed: int) -> None:
        self.counts = Counts()
        self.first_call = asyncio.Event()
        self._seed = seed
        self._tls = ssl.create_default_context()  # made once: it takes 40 ms, and no client uses it
        logging.getLogger("mcp").setLevel(logging.CRITICAL)  # some calls fail on purpose

    async def simulate(self, member: Member, url: str, secret: str, stop: asyncio.Event) -> None:
        """Be one member until `stop`: connect, call, count, and reconnect if the connection is lost."""
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
                    await self._call_repeatedly(client, member, rng, stop)
            except* (MCPError, httpx2.HTTPError, OSError):
                await wait_at_most(stop, RECONNECT_S)

    async def _call_repeatedly(self, client: Client, member: Member, rng: random.Random, stop: asyncio.Event) -> None:
        """Call at random moments, until `stop` or until the connection is lost."""
        free = asyncio.Semaphore(MAX_IN_FLIGHT)
        lost = asyncio.Event()
        weights = [pattern.weight for pattern in member.patterns]

        async def one(pattern: CallPattern) -> None:
            try:
                error_type = await call(client, pattern)
            finally:
                free.release()
            self.counts[CountKey(member.workspace, member.token_id, error_type)] += 1
            self.first_call.set()
            if error_type == LOST:
                lost.set()

        async with asyncio.TaskGroup() as calls:
            while not stop.is_set() and not lost.is_set():
                await wait_at_most(stop, rng.expovariate(member.calls_per_s))
                await free.acquire()
                calls.create_task(one(rng.choices(member.patterns, weights)[0]))


async def _wait_for_tools(client: Client, member: Member, stop: asyncio.Event) -> None:
    """List the tools until the member's own are there, because servers need a moment to start.

    After the call of a tool that was never listed the SDK's client lists all tools again, which the gateway may reject.
    """
    wanted = {pattern.tool for pattern in member.patterns if pattern.exists}
    while not stop.is_set() and wanted - {tool.name for tool in (await client.list_tools()).tools}:
        await wait_at_most(stop, RECONNECT_S)


async def call(client: Client, pattern: CallPattern) -> str | None:
    """Make one call: None if it succeeded, else an `ErrorType`, or `lost`."""
    try:
        result = await client.call_tool(
            pattern.tool,
            dict(pattern.arguments),
            read_timeout_seconds=pattern.timeout_s,
            progress_callback=_ignore_progress if "index" in pattern.tool else None,  # so that the answer is a stream
        )
    except MCPError as error:
        return error_type_of(error)
    return ErrorType.TOOL_ERROR if result.is_error else None


def error_type_of(error: MCPError) -> str:
    """Why a call failed: from the `data` of the gateway's errors, or from the code of the SDK client's own."""
    if isinstance(error.data, dict) and "error_type" in error.data:
        return str(error.data["error_type"])
    if error.code == REQUEST_TIMEOUT:
        return ErrorType.CANCELLED
    if error.code == CONNECTION_CLOSED:
        return LOST
    if error.code == INTERNAL_ERROR and error.message == _HTTP_ERROR:
        return ErrorType.RATE_LIMITED
    return ErrorType.JSONRPC_ERROR


async def _ignore_progress(progress: float, total: float | None, message: str | None) -> None:
    pass
