"""A server on the official SDK behind an HTTP upstream, of either era: sessions, its requests, changes, streams."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from gateway.config import HttpServer
from gateway.http1.pool import Pool
from gateway.mcp import jsonrpc
from gateway.mcp.revisions import Era
from gateway.process import serve
from gateway.upstream.base import DEFAULT_TIMINGS, Client, UpstreamRequest, UpstreamResponse
from gateway.upstream.http import HttpUpstream
from tests.conformance.fixture import application
from tests.upstream.stdio_rig import result, until

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # the server's own use

HANG_S = 60.0
CAN: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}


@contextlib.asynccontextmanager
async def served(era: Era) -> AsyncIterator[HttpUpstream]:
    stop = asyncio.Event()
    sock = socket.create_server(("127.0.0.1", 0))
    async with asyncio.timeout(HANG_S), application(era.value) as app:
        serving = asyncio.create_task(serve(app, sock, stop=stop, grace_seconds=1))
        port = sock.getsockname()[1]
        pool = Pool("127.0.0.1", port, None)
        url = f"http://127.0.0.1:{port}/mcp"
        upstream = HttpUpstream("fixture", HttpServer(url=url), lambda *_: pool, DEFAULT_TIMINGS)
        try:
            yield upstream
        finally:
            await upstream.close()
            pool.close()
            stop.set()
            await serving


class FakeClient:
    """A client that answers what it is asked, and remembers it."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.heard: list[Any] = []
        self._answer = answer

    async def ask(self, method: str, params: Raw) -> UpstreamResponse:
        self.asked.append((method, msgspec.json.decode(params)))
        return UpstreamResponse(jsonrpc.raw(self._answer))

    async def notify(self, data: bytes) -> None:
        self.heard.append(json.loads(data))

    def calls(self, tool: str, *, level: str | None = None, **arguments: str) -> UpstreamRequest:
        client = Client(jsonrpc.raw(CAN), self.ask, level)
        return UpstreamRequest(
            "tools/call",
            {"name": tool, "arguments": arguments},
            name=tool,
            token_id="alice",
            client=client,
            notify=self.notify,
        )


def text(reply: UpstreamResponse) -> str:
    return str(result(reply)["content"][0]["text"])


async def test_a_legacy_server_asks_the_client_of_the_call_and_gets_its_answer() -> None:
    person = FakeClient({"action": "accept", "content": {"username": "ann", "email": "a@b.c"}})
    async with served(Era.LEGACY) as upstream:
        reply = await upstream.request(person.calls("test_elicitation", message="who?"))

        assert "ann" in text(reply)
        [(method, params)] = person.asked
        assert method == "elicitation/create"
        assert params["message"] == "who?"


async def test_initialize_declares_the_capabilities_of_each_client() -> None:
    person = FakeClient({})
    async with served(Era.LEGACY) as upstream:
        able = person.calls("test_elicitation", message="who?")
        unable = UpstreamRequest("tools/call", able.params, name="test_elicitation", token_id="alice")
        reply = await upstream.request(unable)

        assert not reply.is_result
        assert person.asked == []


async def test_each_modern_request_declares_a_legacy_clients_capabilities_and_may_need_input() -> None:
    async with served(Era.MODERN) as upstream:
        reply = await upstream.request(FakeClient({}).calls("test_elicitation", message="who?"))

        assert result(reply)["resultType"] == "input_required"


@pytest.mark.parametrize("era", [Era.MODERN, Era.LEGACY])
async def test_log_messages_come_from_the_level_on_that_the_client_wants(era: Era) -> None:
    async with served(era) as upstream:
        for level, count in [("debug", 3), ("error", 0)]:
            person = FakeClient({})
            await upstream.request(person.calls("test_tool_with_logging", level=level))
            assert [message["method"] for message in person.heard] == ["notifications/message"] * count


async def test_an_answer_whose_stream_the_server_closed_on_the_way_is_fetched() -> None:
    person = FakeClient({})
    async with served(Era.LEGACY) as upstream:
        reply = await upstream.request(person.calls("test_reconnection", level="debug"))

        assert text(reply) == "The call went on without its stream."
        assert [message["params"]["data"] for message in person.heard] == [
            "Before the stream is closed",
            "After the stream was closed",
        ]


@pytest.mark.parametrize("era", [Era.MODERN, Era.LEGACY])
async def test_listeners_hear_of_changes_whoever_caused_them(era: Era) -> None:
    heard: list[str] = []
    async with served(era) as upstream:
        upstream.listen(lambda method, _: heard.append(method))
        await upstream.subscribe(frozenset())
        assert upstream.era is era
        await upstream.request(FakeClient({}).calls("test_trigger_tool_change"))
        await until(lambda: heard == ["notifications/tools/list_changed"])
        await upstream.request(FakeClient({}).calls("test_trigger_prompt_change"))
        await until(lambda: heard[1:] == ["notifications/prompts/list_changed"])


@pytest.mark.parametrize("era", [Era.MODERN, Era.LEGACY])
async def test_subscriptions_are_made_and_taken_back(era: Era) -> None:
    async with served(era) as upstream:
        upstream.listen(lambda *_: None)
        for uris in [{"test://watched-resource"}, {"test://watched-resource", "test://static-text"}, set()]:
            await upstream.subscribe(frozenset(uris))
