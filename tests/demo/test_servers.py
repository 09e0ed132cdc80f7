"""The demo's MCP servers, by the official SDK's own client: in this process, and as the processes that they are."""

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError

from gateway.demo.servers import LegacyOnly, MisbehavingServer, build
from gateway.demo.tools import REFUSED, DemoTool, Outcome

TOOLS = (
    DemoTool(name="fine", description="Works.", read_only=True, parameters={"what": "Anything."}),
    DemoTool(name="steps", description="Reports.", steps=3),
    DemoTool(name="fails", description="", failures={Outcome.TOOL_ERROR: 1}, message="no such invoice"),
    DemoTool(name="refuses", description="", failures={Outcome.JSONRPC_ERROR: 1}, message="already refunded"),
    DemoTool(name="hangs", description="", failures={Outcome.HANG: 1}),
)
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "server/discover", "accept": "application/json"}


async def test_a_server_lists_its_tools_with_their_arguments() -> None:
    async with Client(build("billing", TOOLS, seed=1), cache=None) as client:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert list(listed) == [tool.name for tool in TOOLS]
    assert listed["fine"].input_schema["properties"] == {"what": {"type": "string", "description": "Anything."}}
    assert listed["fine"].annotations is not None
    assert listed["fine"].annotations.read_only_hint
    assert listed["fails"].annotations is None


async def test_calls_turn_out_as_their_tools_say() -> None:
    async with Client(build("billing", TOOLS, seed=1), cache=None) as client:
        fine = await client.call_tool("fine", {"what": "x"})
        fails = await client.call_tool("fails")
        with pytest.raises(MCPError) as refuses:
            await client.call_tool("refuses")
        with pytest.raises(MCPError, match="Timed out"):
            await client.call_tool("hangs", read_timeout_seconds=0.05)
        with pytest.raises(MCPError, match="Unknown tool: dances"):
            await client.call_tool("dances")

    assert not fine.is_error
    assert json.loads(_text(fine)) == {
        "server": "billing",
        "tool": "fine",
        "arguments": {"what": "x"},
        "revision": "2026-07-28",
    }
    assert (fails.is_error, _text(fails)) == (True, "no such invoice")
    assert (refuses.value.code, refuses.value.message) == (REFUSED, "already refunded")


async def test_progress_is_reported_step_by_step() -> None:
    seen: list[float] = []

    async def notice(progress: float, total: float | None, message: str | None) -> None:
        assert (total, message) == (3, f"steps: step {progress:.0f} of 3")
        seen.append(progress)

    async with Client(build("billing", TOOLS, seed=1), cache=None) as client:
        await client.call_tool("steps", progress_callback=notice)

    assert seen == [1, 2, 3]


async def test_a_legacy_server_refuses_the_modern_era_as_a_bad_request() -> None:
    manager = StreamableHTTPSessionManager(build("billing", TOOLS, seed=1))
    async with manager.run(), _asgi(LegacyOnly(manager.handle_request)) as http:
        message = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {}}
        refused = await http.post("/", json=message, headers=MODERN)
        message["method"] = "initialize"
        message["params"] = {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        accept = {"accept": "application/json, text/event-stream"}
        welcomed = await http.post("/", json=message, headers=accept)

    assert refused.status_code == 400
    assert "Unsupported protocol version: 2026-07-28" in refused.json()["error"]["message"]
    assert welcomed.status_code == 200
    assert "mcp-session-id" in welcomed.headers


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (Outcome.OK, 200, '"text":"ok"'),
        (Outcome.TOOL_ERROR, 200, '"isError":true'),
        (Outcome.JSONRPC_ERROR, 200, f'"code":{REFUSED}'),
        (Outcome.HTTP_ERROR, 502, "<h1>out of order</h1>"),
        (Outcome.GARBAGE, 200, '"resul'),
    ],
)
async def test_a_misbehaving_server_answers_as_badly_as_its_tool_says(outcome: Outcome, status: int, body: str) -> None:
    tool = DemoTool(name="stock", description="", failures={outcome: 1}, message="out of order")
    async with _asgi(MisbehavingServer([tool], seed=1)) as http:
        response = await http.post(
            "/", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "stock"}}
        )

    assert response.status_code == status
    assert body in response.text


@pytest.mark.parametrize(
    ("kind", "revision"), [("modern", "2026-07-28"), ("legacy", "2025-11-25"), ("misbehaving", "2026-07-28")]
)
async def test_a_server_process_says_its_url_and_ends_with_whoever_started_it(kind: str, revision: str) -> None:
    with _process(kind) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()

        async with Client(url, cache=None) as client:
            assert client.protocol_version == revision
            assert (await client.list_tools()).tools

        process.stdin.close()
        assert process.wait(timeout=60) == 0


def test_a_server_process_takes_a_socket_that_listens_already() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    with sock, _process("misbehaving", f"--fd={sock.fileno()}", descriptor=sock.fileno()) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"http://127.0.0.1:{sock.getsockname()[1]}/mcp\n"


async def test_the_stdio_server_speaks_on_its_standard_streams() -> None:
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "gateway.demo.servers", "stdio"])
    async with Client(parameters, cache=None) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        answer = await client.call_tool("current_time", {"zone": "UTC"})

    assert names == ["read_file", "list_folder", "current_time"]
    assert not answer.is_error


@contextlib.asynccontextmanager
async def _asgi(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        yield http


@contextlib.contextmanager
def _process(kind: str, *options: str, descriptor: int | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.demo.servers", kind, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        pass_fds=[] if descriptor is None else [descriptor],
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _text(result: Any) -> str:
    [block] = result.content
    text: str = block.text
    return text
