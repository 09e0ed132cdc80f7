"""An MCP server of the official SDK over a set of tools, for every transport and era."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.demo.tools import HANG_S, REFUSED, DemoTool, Outcome, Outcomes

Context = ServerRequestContext[dict[str, Any]]


def build(name: str, tools: Sequence[DemoTool], seed: int) -> Server[dict[str, Any]]:
    """A server with these tools; what its calls do is drawn from `seed`."""
    known = {tool.name: tool for tool in tools}
    outcomes = Outcomes(tools, seed)
    listing = ListToolsResult(tools=[_listing(tool) for tool in tools])

    async def list_tools(_ctx: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return listing

    async def call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        tool = known.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
        planned = outcomes.draw(tool.name)
        await _work(ctx, tool, planned.seconds)
        match planned.outcome:
            case Outcome.HANG:
                await asyncio.sleep(HANG_S)
            case Outcome.JSONRPC_ERROR:
                raise MCPError(REFUSED, tool.message)
            case Outcome.TOOL_ERROR:
                return CallToolResult(content=[TextContent(type="text", text=tool.message)], is_error=True)
            case _:
                pass
        answer = {"server": name, "tool": tool.name, "arguments": params.arguments, "revision": ctx.protocol_version}
        return CallToolResult(content=[TextContent(type="text", text=json.dumps(answer))])

    def input_schema(tool: str) -> dict[str, Any] | None:
        return known[tool].input_schema() if tool in known else None

    return Server(
        name, version="1.0", on_list_tools=list_tools, on_call_tool=call_tool, get_tool_input_schema=input_schema
    )


async def _work(ctx: Context, tool: DemoTool, seconds: float) -> None:
    """Take the time, in as many steps as the tool reports."""
    for step in range(tool.steps):
        await asyncio.sleep(seconds / tool.steps)
        await ctx.session.report_progress(step + 1, tool.steps, f"{tool.name}: step {step + 1} of {tool.steps}")
    if not tool.steps and seconds:
        await asyncio.sleep(seconds)


def _listing(tool: DemoTool) -> Tool:
    hints = ToolAnnotations(read_only_hint=True) if tool.read_only else None
    return Tool(name=tool.name, description=tool.description, input_schema=tool.input_schema(), annotations=hints)


class LegacyOnly:
    """Answers as servers did before 2026-07-28: a revision that no handshake offered is a bad request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the legacy revisions pass."""
        version = dict(scope["headers"]).get(b"mcp-protocol-version")
        if version is None or version.decode("latin-1") in HANDSHAKE_PROTOCOL_VERSIONS:
            await self._app(scope, receive, send)
            return
        message = f"Bad Request: Unsupported protocol version: {version.decode('latin-1')}"
        body = json.dumps({"jsonrpc": "2.0", "id": "server-error", "error": {"code": -32600, "message": message}})
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body.encode()})


def over_http(server: Server[dict[str, Any]]) -> StreamableHTTPSessionManager:
    """The server's Streamable HTTP door: enter its `run()`, serve its `asgi_app`."""
    return StreamableHTTPSessionManager(server)
