"""Sessions with a legacy server: whose they are, what they declare, when they end."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec import UNSET
from msgspec import Raw as RawJson

from gateway.mcp import jsonrpc
from gateway.upstream.base import Client, UpstreamError, UpstreamRequest, UpstreamResponse
from tests.http1.raw import (
    TEXT,
    Do,
    Raw,
    Request,
    Steps,
    answered,
    error,
    event,
    eventually,
    head,
    legacy,
    modern,
    raw,
    whole,
)
from tests.upstream.http_rig import upstream_of, value

LOGGING: dict[str, Any] = {"tools": {}, "logging": {}}


async def ask(_method: str, _params: RawJson) -> UpstreamResponse:
    return UpstreamResponse(jsonrpc.EMPTY_OBJECT)


def client(can: dict[str, Any], level: str | None = None) -> Client:
    return Client(jsonrpc.raw(can), ask, level)


def call(token_id: str | None = None, who: Client | None = None, **members: Any) -> UpstreamRequest:
    return UpstreamRequest(
        "tools/call", {"name": "act", "arguments": {}}, name="act", token_id=token_id, client=who, **members
    )


class Sessions:
    """A legacy server that gives each `initialize` a new session."""

    def __init__(self, act: Any = None, capabilities: Any = None) -> None:
        self.declared: list[Any] = []
        self.ended: list[str] = []
        self._act = act
        self._capabilities = capabilities or {"tools": {}}

    def __call__(self, request: Request) -> Steps:
        if request.verb == "DELETE":
            self.ended.append(request.headers["mcp-session-id"])
            return [whole(b"")]
        if request.verb == "GET":
            return [whole(b"", 405)]
        if request.message.get("method") == "initialize":
            self.declared.append(request.message["params"]["capabilities"])
            opened = {"protocolVersion": "2025-11-25", "capabilities": self._capabilities}
            return [answered(request, opened, f"mcp-session-id: s-{len(self.declared)}")]
        return legacy(self._act)(request)


def used(server: Raw) -> list[str]:
    """The session of each call."""
    return [request.headers["mcp-session-id"] for request in server.calls]


async def test_each_token_has_a_session_and_the_gateway_its_own() -> None:
    behave = Sessions()
    async with raw(behave) as server, upstream_of(server) as upstream:
        for token_id in ("alice", "bot", None, "alice", None):
            await upstream.request(call(token_id))

        assert used(server) == ["s-1", "s-2", "s-3", "s-1", "s-3"]
        assert server.methods().count("server/discover") == 1
        assert behave.declared == [{}, {}, {}]


async def test_a_session_declares_the_input_that_its_clients_can_give_and_nothing_else() -> None:
    behave = Sessions()
    async with raw(behave) as server, upstream_of(server) as upstream:
        able = client({"elicitation": {"form": {}}, "roots": {"listChanged": True}, "experimental": {"x": {}}})
        await upstream.request(call("alice", able))
        await upstream.request(call("alice", client({"tasks": {}})))
        await upstream.request(call("alice"))
        await upstream.request(call("alice", able))

        assert behave.declared == [{"elicitation": {"form": {}}, "roots": {}}, {}]
        assert used(server) == ["s-1", "s-2", "s-2", "s-1"]


async def test_a_server_without_session_ids_has_one_session_for_all() -> None:
    async with raw(legacy(session=None)) as server, upstream_of(server) as upstream:
        for token_id in ("alice", "bot", None):
            await upstream.request(call(token_id))

        assert server.methods().count("initialize") == 1


async def test_a_first_call_of_many_tokens_at_once_probes_once() -> None:
    async with raw(Sessions()) as server, upstream_of(server) as upstream:
        await asyncio.gather(*(upstream.request(call(f"t{number % 5}")) for number in range(50)))

        assert server.methods().count("server/discover") == 1
        assert server.methods().count("initialize") == 5


# -- a refused call: HTTP status x text x repeatable -> how often it is sent, and what its client gets


class Restarted:
    """A legacy server that has forgotten its first session, if `forgets`, and refuses the first call."""

    def __init__(self, refusal: Steps, *, forgets: bool) -> None:
        self._refusal = refusal
        self._forgets = forgets
        self._sessions = Sessions()

    def __call__(self, request: Request) -> Steps:
        if request.headers.get("mcp-session-id") == "s-1" and request.verb == "POST":
            method = request.message["method"]
            if method == "tools/call" or (method == "ping" and self._forgets):
                return self._refusal
            if method == "ping":
                return [answered(request, {})]
        return self._sessions(request)


TEXTS: dict[str, bytes] = {
    "no valid session": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID provided"}}',
    "not initialized": b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Not initialized"}}',
    "plain text": b"Invalid session ID",
    "nothing": b"",
    "checkout session": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"checkout session expired"}}',
    "database": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"database not initialized"}}',
    "arguments": b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"Invalid arguments"}}',
}


async def outcome_of(calling: Awaitable[UpstreamResponse]) -> str:
    """What the client gets: a refusal without an id that a response must have is an `UpstreamError`."""
    try:
        reply = await calling
    except UpstreamError as error:
        return "the refusal" if error.response in TEXTS.values() else "another"
    if reply.error is not UNSET:
        return "the refusal" if any(bytes(reply.error) in text for text in TEXTS.values()) else "another"
    return "result"


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    ("status", "forgets", "repeatable", "sent"),
    [
        (404, True, False, 2),
        (404, True, True, 2),
        (404, False, False, 2),
        (400, True, False, 1),
        (400, True, True, 2),
        (400, False, False, 1),
        (400, False, True, 1),
        (409, True, True, 1),
        (500, True, True, 1),
    ],
)
async def test_a_refused_call_is_sent_again_by_its_status_and_never_by_its_text(
    text: str, status: int, sent: int, *, forgets: bool, repeatable: bool
) -> None:
    behave = Restarted([whole(TEXTS[text], status)], forgets=forgets)
    async with raw(behave) as server, upstream_of(server) as upstream:
        outcome = await outcome_of(upstream.request(call("alice", repeatable=repeatable)))

        assert outcome == ("result" if sent == 2 else "the refusal")
        assert len(server.calls) == sent


@pytest.mark.parametrize(("forgets", "session"), [(True, "s-2"), (False, "s-1")])
async def test_after_a_400_the_next_call_gets_a_new_session_only_if_the_server_does_not_know_the_old_one(
    *, forgets: bool, session: str
) -> None:
    behave = Restarted([whole(b"", 400)], forgets=forgets)
    async with raw(behave) as server, upstream_of(server) as upstream:
        for _ in range(2):
            with contextlib.suppress(UpstreamError):
                await upstream.request(call("alice"))

        assert used(server) == ["s-1", session]


@pytest.mark.parametrize("message", ["Invalid arguments", "no such path", "Bad Request"])
async def test_a_server_that_knows_no_ping_keeps_its_session_after_a_400(message: str) -> None:
    def behave(request: Request) -> Steps:
        code = -32601 if request.message.get("method") == "ping" else -32000
        refuses = request.message.get("method") in ("ping", "tools/call")
        return [whole(json.dumps(error(request, code, message)).encode(), 400)] if refuses else ordinary(request)

    ordinary = Sessions()
    async with raw(behave) as server, upstream_of(server) as upstream:
        for _ in range(2):
            assert not (await upstream.request(call("alice", repeatable=True))).is_result
        assert used(server) == ["s-1", "s-1"]


async def test_a_lost_session_of_one_token_leaves_the_others() -> None:
    def act(request: Request) -> Steps:
        return [whole(b"", 404)] if request.headers["mcp-session-id"] == "s-1" else [answered(request, TEXT)]

    async with raw(Sessions(act)) as server, upstream_of(server) as upstream:
        await asyncio.gather(upstream.request(call("bot")))
        await upstream.request(call("alice"))
        await upstream.request(call("bot"))

        assert used(server) == ["s-1", "s-2", "s-3", "s-2"]


# -- the end of a session


async def test_closing_the_upstream_ends_its_sessions() -> None:
    behave = Sessions()
    async with raw(behave) as server:
        async with upstream_of(server) as upstream:
            await upstream.request(call("alice"))
            await upstream.request(call("bot"))

        assert sorted(behave.ended) == ["s-1", "s-2"]


async def test_a_server_that_does_not_answer_a_delete_is_not_waited_for() -> None:
    ordinary = Sessions()
    async with raw(lambda r: [Do.HOLD] if r.verb == "DELETE" else ordinary(r)) as server:
        async with upstream_of(server, timings={"close_s": 0.05}) as upstream:
            await upstream.request(call("alice"))

        assert await eventually(lambda: server.open == 0)


async def test_the_session_used_least_recently_makes_room() -> None:
    behave = Sessions()
    async with raw(behave) as server, upstream_of(server, max_sessions=2) as upstream:
        for token_id in ("alice", "bot", "alice", "carl"):
            await upstream.request(call(token_id))

        assert await eventually(lambda: behave.ended == ["s-2"])
        await upstream.request(call("alice"))
        assert used(server)[-1] == "s-1"


async def test_a_session_with_a_request_under_way_makes_no_room() -> None:
    go = asyncio.Event()
    behave = Sessions(
        lambda r: [go, answered(r, TEXT)] if r.headers["mcp-session-id"] == "s-1" else [answered(r, TEXT)]
    )
    async with raw(behave) as server, upstream_of(server, max_sessions=1) as upstream:
        calling = asyncio.create_task(upstream.request(call("alice")))
        assert await eventually(lambda: len(server.calls) == 1)
        await upstream.request(call("bot"))
        go.set()

        assert value(await calling) == TEXT
        assert "s-1" not in behave.ended


async def test_an_idle_session_is_ended() -> None:
    behave = Sessions()
    async with raw(behave) as server, upstream_of(server, timings={"idle_s": 0.05}) as upstream:
        await upstream.request(call("alice"))

        assert await eventually(lambda: behave.ended == ["s-1"])
        assert value(await upstream.request(call("alice"))) == TEXT
        assert used(server) == ["s-1", "s-2"]


# -- cancelling


async def test_a_cancelled_call_is_cancelled_by_its_id_upstream() -> None:
    behave = Sessions(lambda _: [Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        calling = asyncio.create_task(upstream.request(call("alice")))
        assert await eventually(lambda: len(server.calls) == 1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

        assert await eventually(lambda: server.methods()[-1] == "notifications/cancelled")
        cancelled = server.requests[-1]
        assert cancelled.message["params"]["requestId"] == server.calls[0].message["id"]
        assert cancelled.headers["mcp-session-id"] == "s-1"


async def test_a_cancelled_call_to_a_modern_server_says_so_by_closing_alone() -> None:
    async with raw(modern(lambda _: [Do.HOLD])) as server, upstream_of(server) as upstream:
        calling = asyncio.create_task(upstream.request(call("alice")))
        assert await eventually(lambda: len(server.calls) == 1)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

        assert await eventually(lambda: server.open == 0)
        assert "notifications/cancelled" not in server.methods()


# -- the log level


async def test_a_level_is_set_once_for_a_session_and_again_only_for_less_severe_messages() -> None:
    async with raw(Sessions(capabilities=LOGGING)) as server, upstream_of(server) as upstream:
        for level in (None, "warning", "warning", "error", "debug", "info"):
            await upstream.request(call("alice", client({}, level)))

        set_to = [
            r.message["params"]["level"] for r in server.requests if r.message.get("method") == "logging/setLevel"
        ]
        assert set_to == ["warning", "debug"]


async def test_a_server_without_logging_gets_no_level() -> None:
    async with raw(Sessions()) as server, upstream_of(server) as upstream:
        await upstream.request(call("alice", client({}, "debug")))

        assert "logging/setLevel" not in server.methods()


@pytest.mark.parametrize("refusal", [[whole(b"", 500)], [Do.CLOSE]])
async def test_a_level_that_the_server_does_not_take_costs_no_call(refusal: Steps) -> None:
    ordinary = Sessions(capabilities=LOGGING)

    def behave(request: Request) -> Steps:
        return refusal if request.message.get("method") == "logging/setLevel" else ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(call("alice", client({}, "debug")))) == TEXT


@pytest.mark.parametrize(
    ("meta", "who", "heard"),
    [
        ({"io.modelcontextprotocol/protocolVersion": "2026-07-28"}, None, []),
        (
            {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/logLevel": "error",
            },
            None,
            ["error"],
        ),
        ({}, None, ["debug", "error"]),
        ({}, client({}), []),
        ({}, client({}, "info"), ["error"]),
    ],
)
async def test_of_a_legacy_servers_messages_a_client_gets_those_that_it_wants(
    meta: dict[str, Any], who: Client | None, heard: list[str]
) -> None:
    got: list[str] = []

    async def notify(data: bytes) -> None:
        got.append(json.loads(data)["params"]["level"])

    def act(request: Request) -> Steps:
        said = [
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": one}}
            for one in ("debug", "error")
        ]
        answer = {"jsonrpc": "2.0", "id": request.message["id"], "result": TEXT}
        stream = head(200, "content-type: text/event-stream", "transfer-encoding: chunked")
        return [stream, *(event(one) for one in said), event(answer), b"0\r\n\r\n"]

    raw_meta = {key: jsonrpc.raw(one) for key, one in meta.items()}
    async with raw(Sessions(act, LOGGING)) as server, upstream_of(server) as upstream:
        await upstream.request(call("alice", who, meta=raw_meta, notify=notify))

        assert got == heard


async def test_mirrored_arguments_go_to_a_modern_server_and_to_no_legacy_one() -> None:
    lines = b"mcp-param-region: eu\r\n"
    async with raw(modern()) as server, upstream_of(server) as upstream:
        await upstream.request(call("alice", param_lines=lines))
        assert server.calls[0].headers["mcp-param-region"] == "eu"
    async with raw(Sessions()) as server, upstream_of(server) as upstream:
        await upstream.request(call("alice", param_lines=lines))
        assert "mcp-param-region" not in server.calls[0].headers


async def test_a_refused_initialize_is_the_failure_of_that_call_alone() -> None:
    ordinary = Sessions()

    def behave(request: Request) -> Steps:
        message = request.message
        if message.get("method") == "initialize" and message["params"]["capabilities"]:
            return [whole(json.dumps(error(request, -32603, "not that")).encode())]
        return ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        await upstream.request(call("alice"))
        with pytest.raises(UpstreamError, match="initialize"):
            await upstream.request(call("alice", client({"roots": {}})))
        assert value(await upstream.request(call("alice"))) == TEXT
