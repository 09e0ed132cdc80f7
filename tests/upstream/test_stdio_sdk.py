"""Servers on the official SDK, of both eras, behind a stdio upstream."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from msgspec import Raw

from gateway.config import StdioServer
from gateway.mcp.revisions import Era
from gateway.upstream.base import DEFAULT_TIMINGS, UpstreamRequest
from gateway.upstream.stdio import StdioUpstream
from tests.upstream.stdio_rig import lines, result, until

SERVER = """
import asyncio, sys
import anyio
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

async def list_tools(ctx, params):
    return ListToolsResult(tools=[Tool(name="work", input_schema={"type": "object"})])

async def call_tool(ctx, params):
    if params.name == "wait":
        try:
            open(sys.argv[1], "a").write("waiting\\n")
            await asyncio.Event().wait()
        finally:
            open(sys.argv[1], "a").write("cancelled\\n")
    await ctx.session.report_progress(1, 2, "half")
    return CallToolResult(content=[TextContent(type="text", text=ctx.protocol_version)])

async def main():
    server = Server("sdk", version="1", on_list_tools=list_tools, on_call_tool=call_tool,
                    get_tool_input_schema=lambda name: None)
    async with stdio_server() as (read, write):
        await serve(server, read, write)

async def serve(server, read, write):
    {serve}

asyncio.run(main())
"""

SERVES = {
    Era.MODERN: "await server.run(read, write, server.create_initialization_options())",
    Era.LEGACY: "await legacy_only(server, read, write)",
}
"""What the SDK does by itself is to serve the era that the first request is of."""

LEGACY_ONLY = """
from mcp_types import JSONRPCError, JSONRPCRequest, ErrorData
from mcp.shared.message import SessionMessage

async def legacy_only(server, read, write):
    to_server, from_client = anyio.create_memory_object_stream(8)
    async def refuse_discover():
        async with to_server:
            async for item in read:
                message = getattr(item, "message", None)
                if isinstance(message, JSONRPCRequest) and message.method == "server/discover":
                    error = ErrorData(code=-32601, message="Method not found")
                    await write.send(SessionMessage(JSONRPCError(jsonrpc="2.0", id=message.id, error=error)))
                else:
                    await to_server.send(item)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(refuse_discover)
        await server.run(from_client, write, server.create_initialization_options())
        tasks.cancel_scope.cancel()
"""


@pytest.fixture(params=[Era.MODERN, Era.LEGACY])
async def sdk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Era, StdioUpstream]]:
    era: Era = request.param
    program = LEGACY_ONLY + SERVER.replace("{serve}", SERVES[era])
    upstream = StdioUpstream(
        "sdk", StdioServer(command=sys.executable, args=["-c", program, str(tmp_path / "log")]), DEFAULT_TIMINGS
    )
    yield era, upstream
    await upstream.close()


async def test_a_server_on_the_official_sdk_lists_works_reports_and_is_cancelled(
    sdk: tuple[Era, StdioUpstream], tmp_path: Path
) -> None:
    era, upstream = sdk
    listing = result(await upstream.request(UpstreamRequest("tools/list", {})))
    assert [tool["name"] for tool in listing["tools"]] == ["work"]
    assert upstream.era is era

    progress: list[bytes] = []

    async def notify(message: bytes) -> None:
        progress.append(message)

    call = UpstreamRequest("tools/call", {"name": "work"}, meta={"progressToken": Raw(b'"mine"')}, notify=notify)
    spoken = result(await upstream.request(call))["content"][0]["text"]
    assert spoken == {Era.MODERN: "2026-07-28", Era.LEGACY: "2025-11-25"}[era]
    assert [json.loads(message)["params"]["progressToken"] for message in progress] == ["mine"]

    await _is_cancelled(upstream, lambda: lines(tmp_path / "log"))


async def _is_cancelled(upstream: StdioUpstream, log: Callable[[], list[str]]) -> None:
    waiting = asyncio.create_task(upstream.request(UpstreamRequest("tools/call", {"name": "wait"})))
    await until(lambda: log() == ["waiting"])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: log() == ["waiting", "cancelled"])
