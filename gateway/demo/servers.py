"""The demo's MCP servers as processes: `python -m gateway.demo.servers modern|legacy|misbehaving|stdio`.

A server over HTTP prints its URL as one line when it listens. It ends at SIGTERM, at Ctrl-C, or, if standard input is
a pipe, at its end: together with the process that started it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import uvloop
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.demo.tools import BILLING, FILES, GITHUB, HANG_S, REFUSED, WAREHOUSE, DemoTool, Outcome, Outcomes
from gateway.process import log_to_stderr, serve, stop_requested

PATH: Final = "/mcp"
SEED: Final = 20260728
GRACE_S: Final = 2
TOOLS: Final[Mapping[str, Sequence[DemoTool]]] = {
    "modern": GITHUB,
    "legacy": BILLING,
    "misbehaving": WAREHOUSE,
    "stdio": FILES,
}
"""Each kind of server and its tools."""

Context = ServerRequestContext[dict[str, Any]]


def main(tools: Mapping[str, Sequence[DemoTool]] = TOOLS) -> None:
    """The command line; `tools` are those of each kind of server."""
    parser = argparse.ArgumentParser(description="One of the demo's MCP servers.")
    parser.add_argument("kind", choices=sorted(tools))
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--fd", type=int, help="an inherited socket that listens, instead of a port")
    parser.add_argument("--seed", type=int, default=SEED, help="of the outcomes of calls")
    options = parser.parse_args()
    log_to_stderr(options.kind)
    if options.kind == "stdio":
        uvloop.run(_over_stdio(build(options.kind, tools[options.kind], options.seed)))
        return
    if options.fd is not None:
        sock = socket.socket(fileno=options.fd)
    else:
        sock = socket.create_server(("127.0.0.1", options.port))
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_over_http(options.kind, tools[options.kind], options.seed, sock))


async def _over_stdio(server: Server[dict[str, Any]]) -> None:
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def _over_http(kind: str, tools: Sequence[DemoTool], seed: int, sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    stdin_mode = os.fstat(sys.stdin.fileno()).st_mode
    is_pipe = stat.S_ISFIFO(stdin_mode) or stat.S_ISSOCK(stdin_mode)  # asyncio gives children a socket pair
    parent_pipe = sys.stdin.fileno() if is_pipe else None
    async with contextlib.AsyncExitStack() as resources:
        stop = await resources.enter_async_context(stop_requested(parent_pipe))
        print(f"http://{host}:{port}{PATH}", flush=True)  # noqa: T201 - the parent process reads it
        app: ASGIApp
        if kind == "misbehaving":
            app = MisbehavingServer(tools, seed)
        else:
            manager = StreamableHTTPSessionManager(build(kind, tools, seed))
            await resources.enter_async_context(manager.run())
            app = LegacyOnly(manager.handle_request) if kind == "legacy" else manager.handle_request
        await serve(app, sock, stop=stop, grace_seconds=GRACE_S)


def build(name: str, tools: Sequence[DemoTool], seed: int) -> Server[dict[str, Any]]:
    """A server of the official SDK with these tools, for every transport and era."""
    known = {tool.name: tool for tool in tools}
    outcomes = Outcomes(tools, seed)
    listed = ListToolsResult(
        tools=[
            Tool(
                name=tool.name,
                description=tool.description,
                input_schema=tool.input_schema(),
                annotations=ToolAnnotations(read_only_hint=True) if tool.read_only else None,
            )
            for tool in tools
        ]
    )

    async def list_tools(_ctx: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return listed

    async def call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        tool = known.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name}")
        outcome, seconds = outcomes.draw(tool.name)
        for step in range(tool.steps):
            await asyncio.sleep(seconds / tool.steps)
            await ctx.session.report_progress(step + 1, tool.steps, f"{tool.name}: step {step + 1} of {tool.steps}")
        if not tool.steps:
            await asyncio.sleep(seconds)
        if outcome is Outcome.HANG:
            await asyncio.sleep(HANG_S)
        if outcome is Outcome.JSONRPC_ERROR:
            raise MCPError(REFUSED, tool.message)
        if outcome is Outcome.TOOL_ERROR:
            return CallToolResult(content=[TextContent(type="text", text=tool.message)], is_error=True)
        answer = {"server": name, "tool": tool.name, "arguments": params.arguments, "revision": ctx.protocol_version}
        return CallToolResult(content=[TextContent(type="text", text=json.dumps(answer))])

    def input_schema(tool: str) -> dict[str, Any] | None:
        return known[tool].input_schema() if tool in known else None

    return Server(
        name, version="1.0", on_list_tools=list_tools, on_call_tool=call_tool, get_tool_input_schema=input_schema
    )


class LegacyOnly:
    """Answers as servers did before 2026-07-28: a revision that no handshake offered is a bad request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        version = Request(scope).headers.get("mcp-protocol-version")
        if version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
            await self._app(scope, receive, send)
            return
        error = {"code": -32600, "message": f"Bad Request: Unsupported protocol version: {version}"}
        response = JSONResponse({"jsonrpc": "2.0", "id": "server-error", "error": error}, 400)
        await response(scope, receive, send)


class MisbehavingServer:
    """Some of its answers violate MCP. It speaks the modern era only, without the SDK, which would not let it."""

    def __init__(self, tools: Sequence[DemoTool], seed: int) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._outcomes = Outcomes(tools, seed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._answer(await request.json()) if request.method == "POST" else Response(status_code=405)
        await response(scope, receive, send)

    async def _answer(self, request: dict[str, Any]) -> Response:
        complete = {"resultType": "complete"}
        cacheable = {**complete, "ttlMs": 0, "cacheScope": "private"}
        match request.get("method"):
            case "server/discover":
                discovered = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
                return _message(request, result={**cacheable, **discovered})
            case "tools/list":
                listed = [
                    {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema()}
                    for tool in self._tools.values()
                ]
                return _message(request, result={**cacheable, "tools": listed})
            case "tools/call":
                tool = self._tools[request["params"]["name"]]
                outcome, seconds = self._outcomes.draw(tool.name)
                await asyncio.sleep(HANG_S if outcome is Outcome.HANG else seconds)
                return _call_response(request, tool, outcome)
            case _:
                return _message(request, 404, error={"code": METHOD_NOT_FOUND, "message": "Method not found"})


def _call_response(request: dict[str, Any], tool: DemoTool, outcome: Outcome) -> Response:
    match outcome:
        case Outcome.HTTP_ERROR:
            return Response(f"<h1>{tool.message}</h1>", 502, media_type="text/html")
        case Outcome.GARBAGE:
            return Response(b'{"jsonrpc": "2.0", "id": 1, "resul', media_type="application/json")
        case Outcome.CUT:  # fewer bytes than announced, so the connection is closed in the middle of the body
            return Response(b'{"jsonrpc":', headers={"content-length": "1000"}, media_type="application/json")
        case Outcome.JSONRPC_ERROR:
            return _message(request, error={"code": REFUSED, "message": tool.message})
        case _:
            failed = outcome is Outcome.TOOL_ERROR
            content = [{"type": "text", "text": tool.message if failed else "ok"}]
            return _message(request, result={"resultType": "complete", "content": content, "isError": failed})


def _message(request: dict[str, Any], status: int = 200, **member: Any) -> Response:
    return JSONResponse({"jsonrpc": "2.0", "id": request.get("id"), **member}, status)


if __name__ == "__main__":
    main()
