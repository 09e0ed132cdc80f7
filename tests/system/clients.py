"""Clients of the gateway: the official SDK's, as people use it, and bare HTTP, for what no SDK would send."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple

import httpx
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gateway.calls import UNKNOWN, ErrorType
from gateway.demo.traffic import error_type_of
from tests.system.gateway_process import TIMEOUT_S, TLS, Gateway

Mode = Literal["auto", "legacy"]
MODERN: Final = "2026-07-28"
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
}


class Outcome(NamedTuple):
    """A call as every signal names it."""

    token_id: str
    server_slug: str
    tool_name: str
    status: str
    error_type: str | None


Counts = Counter[Outcome]


class Planned(NamedTuple):
    """A call to make; `patience_s` is when its client gives up, which takes a modern one to be noticed."""

    token_id: str
    server_slug: str
    tool: str
    patience_s: float | None = None


@contextlib.asynccontextmanager
async def client(gateway: Gateway, token_id: str, mode: Mode) -> AsyncIterator[Client]:
    """A client of the SDK with this member's token."""
    headers = {"Authorization": f"Bearer {gateway.secrets[token_id]}"}
    async with (
        httpx2.AsyncClient(headers=headers, verify=TLS, timeout=TIMEOUT_S) as http,
        Client(
            streamable_http_client(gateway.url, http_client=http),
            mode=mode,
            cache=None,
            read_timeout_seconds=TIMEOUT_S,
        ) as connected,
    ):
        yield connected


async def make(connected: Client, planned: Planned, listed: Iterable[str]) -> Outcome:
    """Make one call: what it became, under the names that the catalog knows."""
    name = f"{planned.server_slug}__{planned.tool}"
    error_type: str | None = None
    try:
        result = await connected.call_tool(name, {"n": "1"}, read_timeout_seconds=planned.patience_s)
        error_type = ErrorType.TOOL_ERROR if result.is_error else None
    except MCPError as error:
        error_type = error_type_of(error)
    return Outcome(
        planned.token_id,
        UNKNOWN if planned.server_slug == "nowhere" else planned.server_slug,
        planned.tool if name in listed else UNKNOWN,
        "success" if error_type is None else "error",
        error_type,
    )


async def make_all(gateway: Gateway, plan: Iterable[Planned], modes: dict[str, Mode], *, at_once: int = 4) -> Counts:
    """Make every call of a plan: what became of them."""
    queues: dict[str, list[Planned]] = {token_id: [] for token_id in modes}
    for planned in plan:
        queues[planned.token_id].append(planned)
    return await make_each(gateway, queues, modes, at_once=at_once)


async def make_each(
    gateway: Gateway, queues: Mapping[str, Iterable[Planned]], modes: dict[str, Mode], *, at_once: int = 4
) -> Counts:
    """Make every token's calls in order, over a connection of its own, `at_once` of them at the same time.

    A queue that ends when an event is set makes traffic that lasts as long as a test needs it.
    """
    counts = Counts()

    async def run(token_id: str) -> None:
        async with client(gateway, token_id, modes[token_id]) as connected:
            listed = {tool.name for tool in (await connected.list_tools()).tools}
            queue = iter(queues[token_id])

            async def work() -> None:
                for planned in queue:
                    counts[await make(connected, planned, listed)] += 1

            async with asyncio.TaskGroup() as workers:
                for _ in range(at_once):
                    workers.create_task(work())

    async with asyncio.TaskGroup() as members:
        for token_id in modes:
            members.create_task(run(token_id))
    return counts


def request(method: str, params: dict[str, Any] | None = None, request_id: int | str = 1) -> dict[str, Any]:
    """A modern request, as the `json` and `headers` of an HTTP POST, without a token."""
    params = {"_meta": META, **(params or {})}
    headers = {"MCP-Protocol-Version": MODERN, "Mcp-Method": method, "Accept": "application/json, text/event-stream"}
    if "name" in params:
        headers["Mcp-Name"] = params["name"]
    return {"json": {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}, "headers": headers}


def call(name: str, request_id: int | str = 1, **arguments: str) -> dict[str, Any]:
    """A modern `tools/call`."""
    return request("tools/call", {"name": name, "arguments": arguments}, request_id)


def post(gateway: Gateway, message: dict[str, Any], token_id: str, **changes: Any) -> httpx.Response:
    """POST a message with a member's token."""
    headers = {"Authorization": f"Bearer {gateway.secrets[token_id]}", **message.get("headers", {})}
    return httpx.post(gateway.url, **{**message, "headers": headers, "timeout": TIMEOUT_S, "verify": TLS, **changes})
