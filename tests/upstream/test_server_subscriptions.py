"""Changes over HTTP: the streams that are opened for listeners, kept, opened again and closed."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw as RawJson

from gateway.calls import ErrorType
from gateway.upstream.base import UpstreamError, UpstreamRequest
from gateway.upstream.server_subscriptions import ChangeNotifier
from tests.http1.raw import (
    DISCOVERED,
    SSE_END,
    SSE_HEAD,
    TEXT,
    Do,
    Raw,
    Request,
    Step,
    Steps,
    answered,
    error,
    event,
    eventually,
    head,
    legacy,
    modern,
    raw,
    result,
    whole,
)
from tests.upstream.http_rig import call, upstream_of

ALL: dict[str, Any] = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": True}}
TOOLS = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
PROMPTS = {"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}
UPDATED = {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": "file:///a"}}
LISTEN = "subscriptions/listen"


class ChangeRecorder(list[tuple[str, Any]]):
    """A listener."""

    def __call__(self, method: str, params: RawJson) -> None:
        self.append((method.removeprefix("notifications/"), msgspec.json.decode(params)))

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self]


def acknowledged(request: Request) -> bytes:
    meta = {"io.modelcontextprotocol/subscriptionId": request.message["id"]}
    params = {"_meta": meta, "notifications": request.message["params"]["notifications"]}
    return event({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params})


def listened(*turns: Any, capabilities: dict[str, Any] = ALL) -> Any:
    """A modern server; what it does with its first listener, its second, …; the last for all that follow."""
    ordinary = modern()
    left = list(turns)

    def behave(request: Request) -> Steps:
        if request.message["method"] == "server/discover":
            return [answered(request, {**DISCOVERED, "capabilities": capabilities})]
        if request.message["method"] != LISTEN:
            return ordinary(request)
        turn = left.pop(0) if len(left) > 1 else left[0]
        steps: Steps = turn(request) if callable(turn) else [SSE_HEAD, acknowledged(request), *turn]
        return steps

    return behave


def listens(server: Raw) -> list[Any]:
    """What each `subscriptions/listen` asked for."""
    return [r.message["params"]["notifications"] for r in server.requests if r.message.get("method") == LISTEN]


# -- a modern server


async def test_a_modern_server_is_subscribed_to_for_every_list_that_may_change() -> None:
    heard = ChangeRecorder()
    async with raw(listened([event(TOOLS), event(UPDATED), Do.HOLD])) as server, upstream_of(server) as upstream:
        upstream.listen(heard)

        assert await eventually(lambda: heard.methods == ["tools/list_changed", "resources/updated"])
        assert heard[1] == ("resources/updated", {"uri": "file:///a"})
        assert listens(server) == [{"toolsListChanged": True}]
        assert server.requests[-1].headers["mcp-method"] == LISTEN


async def test_a_subscription_is_acknowledged_before_it_is_done() -> None:
    go = asyncio.Event()
    behave = listened([Do.HOLD], lambda r: [SSE_HEAD, go, acknowledged(r), Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(ChangeRecorder())
        await upstream.subscribe(frozenset())
        subscribing = asyncio.create_task(upstream.subscribe(frozenset({"file:///b", "file:///a"})))
        assert await eventually(lambda: len(listens(server)) == 2)
        await asyncio.sleep(0)
        assert not subscribing.done()
        assert server.open == 2  # the old stream is closed when the new one is open
        go.set()
        await subscribing

        assert listens(server)[1] == {"toolsListChanged": True, "resourceSubscriptions": ["file:///a", "file:///b"]}
        assert await eventually(lambda: server.open == 1)
        await upstream.subscribe(frozenset({"file:///a", "file:///b"}))
        assert len(listens(server)) == 2


async def test_closing_the_upstream_closes_its_stream() -> None:
    async with raw(listened([Do.HOLD])) as server:
        async with upstream_of(server) as upstream:
            upstream.listen(ChangeRecorder())
            await upstream.subscribe(frozenset())
            assert len(listens(server)) == 1

        assert await eventually(lambda: server.open == 0)


@pytest.mark.parametrize("ending", [[Do.CLOSE], [Do.RESET], [SSE_END], [event(b"no json"), Do.HOLD]])
async def test_a_stream_that_breaks_is_opened_again(ending: list[Step]) -> None:
    heard = ChangeRecorder()
    behave = listened(ending, [event(TOOLS), Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(heard)

        assert await eventually(lambda: heard.methods == ["tools/list_changed"])
        assert len(listens(server)) == 2


async def test_a_server_that_was_away_may_have_changed_everything() -> None:
    heard = ChangeRecorder()
    behave = listened([Do.CLOSE], lambda _: [whole(b"", 503)], [Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(heard)
        await upstream.subscribe(frozenset({"file:///a"}))

        assert await eventually(lambda: set(heard.methods) == {"tools/list_changed", "resources/updated"})
        assert heard[-1] == ("resources/updated", {"uri": "file:///a"})


async def test_a_stream_that_ends_at_once_is_opened_again_only_after_a_pause() -> None:
    async with raw(listened([SSE_END])) as server, upstream_of(server, timings={"reconnect_s": 1000.0}) as upstream:
        upstream.listen(ChangeRecorder())
        assert await eventually(lambda: len(listens(server)) == 1)
        await upstream.request(call())

        assert len(listens(server)) == 1


@pytest.mark.parametrize(
    ("turn", "error_type", "says"),
    [
        (lambda r: [whole(json.dumps(error(r, -32601, "what?")).encode(), 404)], ErrorType.JSONRPC_ERROR, "what?"),
        (lambda _: [whole(b"", 503)], ErrorType.UPSTREAM_HTTP_ERROR, "HTTP 503"),
        (lambda r: [answered(r, {})], ErrorType.UPSTREAM_PROTOCOL_ERROR, "before it acknowledged"),
        (lambda r: [SSE_HEAD, event(result(r, {})), SSE_END], ErrorType.UPSTREAM_PROTOCOL_ERROR, "before it ack"),
        (lambda _: [SSE_HEAD, SSE_END], ErrorType.UPSTREAM_PROTOCOL_ERROR, "without a response"),
        (lambda _: [SSE_HEAD, Do.HOLD], ErrorType.UPSTREAM_TIMEOUT, "did not acknowledge"),
        (lambda _: [Do.CLOSE], ErrorType.UPSTREAM_UNREACHABLE, "closed the connection"),
    ],
)
async def test_a_subscription_that_the_server_does_not_take_fails(turn: Any, error_type: ErrorType, says: str) -> None:
    async with raw(listened(turn)) as server, upstream_of(server, timings={"acknowledge_s": 0.1}) as upstream:
        upstream.listen(ChangeRecorder())
        with pytest.raises(UpstreamError, match=says) as caught:
            await upstream.subscribe(frozenset({"file:///a"}))

        assert caught.value.error_type is error_type


async def test_a_refused_subscription_leaves_the_one_before() -> None:
    end = asyncio.Event()
    behave = listened(
        lambda r: [SSE_HEAD, acknowledged(r), end, Do.CLOSE],
        lambda r: [whole(json.dumps(error(r, -32602, "no such resource")).encode(), 400)],
        [Do.HOLD],
    )
    async with raw(behave) as server, upstream_of(server) as upstream:
        await upstream.subscribe(frozenset({"file:///a"}))
        upstream.listen(ChangeRecorder())
        with pytest.raises(UpstreamError, match="no such resource"):
            await upstream.subscribe(frozenset({"file:///b"}))
        end.set()

        assert await eventually(lambda: len(listens(server)) == 3)
        assert [one["resourceSubscriptions"] for one in listens(server)] == [
            ["file:///a"],
            ["file:///b"],
            ["file:///a"],
        ]


async def test_a_stream_that_opens_while_the_upstream_is_closed_is_closed_too() -> None:
    go = asyncio.Event()
    behave = listened(lambda r: [SSE_HEAD, go, acknowledged(r), Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        subscribing = asyncio.create_task(upstream.subscribe(frozenset({"file:///a"})))
        assert await eventually(lambda: len(listens(server)) == 1)
        await upstream.close()
        go.set()
        await subscribing

        assert await eventually(lambda: server.open == 0)


async def test_a_stream_that_is_not_acknowledged_is_closed() -> None:
    behave = listened(lambda _: [SSE_HEAD, Do.HOLD])
    async with raw(behave) as server, upstream_of(server, timings={"acknowledge_s": 0.05}) as upstream:
        with pytest.raises(UpstreamError, match="did not acknowledge"):
            await upstream.subscribe(frozenset({"file:///a"}))

        assert await eventually(lambda: server.open == 0)


async def test_a_server_whose_lists_never_change_is_not_listened_to() -> None:
    async with raw(listened([Do.HOLD], capabilities={"tools": {}})) as server, upstream_of(server) as upstream:
        upstream.listen(ChangeRecorder())
        await upstream.subscribe(frozenset())

        assert listens(server) == []


@pytest.mark.parametrize("server_of", [modern, legacy])
async def test_a_change_on_the_stream_of_any_request_goes_to_the_listener_and_not_to_that_requests_client(
    server_of: Any,
) -> None:
    heard, notified = ChangeRecorder(), []

    async def notify(data: bytes) -> None:
        notified.append(data)

    behave = server_of(lambda r: [SSE_HEAD, event(TOOLS), event(result(r, TEXT)), SSE_END])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(heard)
        await upstream.request(call(notify=notify))

        assert heard.methods == ["tools/list_changed"]
        assert notified == []


# -- a legacy server


class Streams:
    """A legacy server with a stream for each session; `turns` are what it does on them in turn, the last for all."""

    def __init__(self, *turns: Any, capabilities: dict[str, Any] = ALL) -> None:
        self._left = list(turns)
        self._sessions = 0
        self._capabilities = capabilities
        self.gets: list[Request] = []

    def __call__(self, request: Request) -> Steps:
        method = request.message.get("method")
        if request.verb == "GET":
            self.gets.append(request)
            turn = self._left.pop(0) if len(self._left) > 1 else self._left[0]
            steps: Steps = turn(request) if callable(turn) else [SSE_HEAD, *turn]
            return steps
        if method == "initialize":
            self._sessions += 1
            opened = {"protocolVersion": "2025-11-25", "capabilities": self._capabilities}
            return [answered(request, opened, f"mcp-session-id: s-{self._sessions}")]
        if method in ("resources/subscribe", "resources/unsubscribe"):
            return [answered(request, {})]
        return legacy()(request)


async def test_a_legacy_servers_changes_come_on_its_sessions_streams() -> None:
    heard = ChangeRecorder()
    behave = Streams([event(TOOLS), event(UPDATED), event(b"no json"), event(PROMPTS), Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(heard)

        assert await eventually(
            lambda: heard.methods == ["tools/list_changed", "resources/updated", "prompts/list_changed"]
        )


async def test_the_streams_of_tokens_sessions_are_open_too_once_there_is_a_listener() -> None:
    behave = Streams([Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        await upstream.request(UpstreamRequest("tools/call", {"name": "act"}, name="act", token_id="before"))
        assert behave.gets == []
        upstream.listen(ChangeRecorder())
        await upstream.subscribe(frozenset())
        await upstream.request(UpstreamRequest("tools/call", {"name": "act"}, name="act", token_id="after"))

        assert sorted(get.headers["mcp-session-id"] for get in behave.gets) == ["s-1", "s-2", "s-3"]


@pytest.mark.parametrize("status", [405, 404, 400, 500])
async def test_a_server_without_session_streams_gets_one_request_for_it(status: int) -> None:
    behave = Streams(lambda _: [whole(b"", status)])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(ChangeRecorder())
        for _ in range(3):
            await upstream.subscribe(frozenset())
            await upstream.request(call())

        assert [get.headers["mcp-session-id"] for get in behave.gets] == ["s-1"]


async def test_a_session_stream_that_ended_is_resumed_from_its_last_event() -> None:
    heard = ChangeRecorder()
    tagged = b"id: e-7\nretry: 1\ndata: " + json.dumps(TOOLS).encode() + b"\n\n"
    length = head(200, "content-type: text/event-stream", f"content-length: {len(tagged)}")
    behave = Streams(lambda _: [length + tagged], [event(PROMPTS), Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(heard)

        assert await eventually(lambda: heard.methods == ["tools/list_changed", "prompts/list_changed"])
        assert [get.headers.get("last-event-id") for get in behave.gets] == [None, "e-7"]


async def test_a_stream_whose_session_is_gone_is_opened_in_a_new_one() -> None:
    heard = ChangeRecorder()
    behave = Streams([SSE_END], lambda _: [whole(b"", 404)], [Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(heard)
        await upstream.subscribe(frozenset())

        assert await eventually(lambda: len(behave.gets) == 3)
        assert [get.headers["mcp-session-id"] for get in behave.gets] == ["s-1", "s-1", "s-2"]


async def test_resources_are_subscribed_to_and_left_one_by_one_and_again_in_a_new_session() -> None:
    behave = Streams([Do.HOLD])
    forgotten: list[str] = []

    def forgetful(request: Request) -> Steps:
        if request.headers.get("mcp-session-id") in forgotten:
            return [whole(b"", 404)]
        return behave(request)

    async with raw(forgetful) as server, upstream_of(server) as upstream:
        upstream.listen(ChangeRecorder())
        await upstream.subscribe(frozenset({"a:1", "a:2"}))
        await upstream.subscribe(frozenset({"a:2", "a:3"}))
        made = [(r.message["method"].removeprefix("resources/"), r.message["params"]["uri"])
                for r in server.requests if "subscribe" in r.message.get("method", "")]  # fmt: skip
        assert made == [("subscribe", "a:1"), ("subscribe", "a:2"), ("unsubscribe", "a:1"), ("subscribe", "a:3")]

        forgotten.append("s-1")
        await upstream.request(call())
        again = [r.headers["mcp-session-id"] + " " + r.message["params"]["uri"] for r in server.requests
                 if r.message.get("method") == "resources/subscribe"][3:]  # fmt: skip
        assert await eventually(lambda: len(again) == 2 or bool(_again(server, again)))
        assert again == ["s-2 a:2", "s-2 a:3"]


def _again(server: Raw, again: list[str]) -> bool:
    again[:] = [
        f"{r.headers['mcp-session-id']} {r.message['params']['uri']}"
        for r in server.requests
        if r.message.get("method") == "resources/subscribe" and r.headers["mcp-session-id"] == "s-2"
    ]
    return len(again) == 2


async def test_the_refusal_of_a_legacy_server_is_returned_for_its_resource() -> None:
    ordinary = Streams([Do.HOLD])

    def behave(request: Request) -> Steps:
        if request.message.get("method") == "resources/subscribe":
            return [whole(json.dumps(error(request, -32602, "no such resource")).encode())]
        return ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        upstream.listen(ChangeRecorder())
        for _ in range(2):
            refused = await upstream.subscribe(frozenset({"file:///nowhere"}))
            assert "no such resource" in str(refused["file:///nowhere"])
            assert refused["file:///nowhere"].error_type is ErrorType.JSONRPC_ERROR
        assert server.methods().count("resources/subscribe") == 1  # it is not asked for again
        await upstream.subscribe(frozenset())
        await upstream.subscribe(frozenset({"file:///nowhere"}))
        assert server.methods().count("resources/subscribe") == 2


async def test_a_server_that_cannot_be_reached_is_listened_to_when_it_is_up() -> None:
    heard = ChangeRecorder()
    async with raw(modern()) as gone:
        pass
    async with upstream_of(gone) as upstream:
        upstream.listen(heard)
        with pytest.raises(UpstreamError, match="refused"):
            await upstream.subscribe(frozenset())
        async with raw(listened([Do.HOLD]), port=gone.port) as server:
            assert await eventually(lambda: len(listens(server)) == 1)
            assert await eventually(lambda: heard.methods == ["tools/list_changed"])
            await upstream.close()


# -- the fan-out


async def test_changes_of_a_list_that_follow_soon_are_one_more_change() -> None:
    heard = ChangeRecorder()
    notifier = ChangeNotifier(quiet_s=0.02)
    notifier.start(heard)
    for _ in range(10):
        notifier.notify("notifications/tools/list_changed", {})
    notifier.notify("notifications/prompts/list_changed", {})
    notifier.notify("notifications/progress", {})
    assert heard.methods == ["tools/list_changed", "prompts/list_changed"]

    assert await eventually(lambda: len(heard) == 3)
    assert heard.methods[2] == "tools/list_changed"
    notifier.close()
    notifier.notify("notifications/resources/updated", {})
    assert len(heard) == 3
