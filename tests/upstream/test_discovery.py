"""First contact: which era an upstream speaks, its session, and what happens when that is lost."""

import asyncio
import json
from typing import Any

import pytest

from gateway.calls import ErrorType
from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamError, UpstreamRequest
from tests.http1.raw import (
    DISCOVERED,
    SSE_END,
    SSE_HEAD,
    TEXT,
    Do,
    Request,
    Steps,
    answered,
    chunk,
    error,
    event,
    eventually,
    legacy,
    modern,
    raw,
    whole,
)
from tests.upstream.http_rig import call, upstream_of, value

HANDSHAKE = ["server/discover", "initialize", "notifications/initialized"]


async def test_a_modern_server_is_probed_once() -> None:
    async with raw(modern()) as server, upstream_of(server) as upstream:
        assert upstream.era is None
        await upstream.request(call())
        await upstream.request(call())

        assert upstream.era is Era.MODERN
        assert server.methods() == ["server/discover", "tools/call", "tools/call"]
        assert server.requests[0].headers["mcp-method"] == "server/discover"


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(lambda _: [whole(b"", 400)], id="400"),
        pytest.param(lambda _: [whole(b"Bad Request: no session", 400, content_type="text/plain")], id="400 in words"),
        pytest.param(lambda _: [whole(b"", 404)], id="404"),
        pytest.param(lambda _: [whole(b"", 405)], id="405"),
        pytest.param(lambda _: [whole(b"", 202)], id="202"),
        pytest.param(lambda _: [whole(b"<h1>oops</h1>", 500)], id="500"),
        pytest.param(lambda r: [whole(json.dumps(error(r, -32601, "what?")).encode())], id="unknown method"),
        pytest.param(lambda r: [whole(json.dumps(error(r, -32600, "initialize!")).encode(), 400)], id="no session"),
        pytest.param(
            lambda _: [whole(b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"x"}}', 400)],
            id="an error with an id of its own",
        ),
        pytest.param(lambda r: [whole(json.dumps({"id": r.message["id"], "error": "no"}).encode())], id="odd error"),
        pytest.param(lambda r: [whole(json.dumps({"id": r.message["id"], "error": None}).encode())], id="null error"),
        pytest.param(lambda r: [answered(r, {})], id="an empty result"),
        pytest.param(lambda r: [answered(r, None)], id="a null result"),
        pytest.param(lambda r: [answered(r, {"supportedVersions": ["2025-11-25"]})], id="legacy versions only"),
        pytest.param(lambda r: [answered(r, {"supportedVersions": "2026-07-28"})], id="versions that are no list"),
        pytest.param(lambda r: [SSE_HEAD, event(error(r, -32601, "what?")), SSE_END], id="an event"),
    ],
)  # fmt: skip
async def test_whatever_does_not_discover_is_tried_as_a_legacy_server(refusal: Any) -> None:
    ordinary = legacy()

    def behave(request: Request) -> Steps:
        steps: Steps = refusal(request) if request.message.get("method") == "server/discover" else ordinary(request)
        return steps

    async with raw(behave) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(call())) == TEXT

        assert upstream.era is Era.LEGACY
        assert server.methods() == [*HANDSHAKE, "tools/call"]
        assert "mcp-protocol-version" not in server.requests[1].headers
        assert server.requests[1].message["params"]["protocolVersion"] == "2025-11-25"
        assert server.requests[2].headers["mcp-session-id"] == "s-1"


async def test_a_server_that_refuses_discovery_with_a_modern_code_is_modern() -> None:
    ordinary = modern()

    def behave(request: Request) -> Steps:
        if request.message["method"] == "server/discover":
            return [whole(json.dumps(error(request, -32020, "a header is wrong")).encode(), 400)]
        return ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        await upstream.request(call())

        assert upstream.era is Era.MODERN


async def test_a_legacy_server_without_sessions_gets_none() -> None:
    async with raw(legacy(session=None)) as server, upstream_of(server) as upstream:
        await upstream.request(call())

        assert "mcp-session-id" not in server.calls[0].headers


@pytest.mark.parametrize("initialized", [whole(b"", 400), whole(b"", 200), b"garbage", Do.CLOSE])
async def test_a_legacy_server_that_does_not_take_initialized_is_used_all_the_same(initialized: Any) -> None:
    ordinary = legacy()

    def behave(request: Request) -> Steps:
        return [initialized] if request.message["method"] == "notifications/initialized" else ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(call())) == TEXT


@pytest.mark.parametrize("version", [None, 5, "2025-11-25\r\nx-evil: 1", "\u00fc", "9999-99-99", ""])
async def test_a_version_that_is_none_does_no_harm(version: Any) -> None:
    ordinary = legacy()

    def behave(request: Request) -> Steps:
        if request.message["method"] == "initialize":
            return [answered(request, {"protocolVersion": version})]
        return ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(call())) == TEXT
        assert "x-evil" not in server.calls[0].headers


@pytest.mark.parametrize(
    ("behave", "error_type", "says"),
    [
        pytest.param(lambda _: [whole(b"<html>", 200)], "upstream_protocol_error", "not JSON-RPC", id="a web site"),
        pytest.param(lambda _: [whole(b"", 401)], "upstream_http_error", "HTTP 401", id="a closed door"),
        pytest.param(lambda _: [whole(b"", 404)], "upstream_http_error", "HTTP 404", id="another path"),
        pytest.param(
            lambda r: [whole(json.dumps(error(r, -32601, "what?")).encode())],
            *("upstream_protocol_error", "is this the URL of an MCP server?"),
            id="another JSON-RPC server",
        ),
        pytest.param(lambda _: [Do.CLOSE], "upstream_unreachable", "before it answered", id="a mute"),
        pytest.param(lambda _: [SSE_HEAD, chunk(b"x"), Do.CLOSE], "upstream_protocol_error", "in the middle", id="cut"),
    ],
)
async def test_a_peer_that_is_not_an_mcp_server_is_named_so_and_probed_again_the_next_time(
    behave: Any, error_type: str, says: str
) -> None:
    healthy: list[bool] = []
    ordinary = modern()

    async with (
        raw(lambda r: ordinary(r) if healthy else behave(r)) as server,
        upstream_of(server) as upstream,
    ):
        with pytest.raises(UpstreamError) as caught:
            await upstream.request(call())
        assert caught.value.error_type == error_type
        assert says in str(caught.value)
        assert upstream.era is None
        assert server.calls == []
        healthy.append(True)

        assert value(await upstream.request(call()))["content"] == TEXT["content"]


async def test_a_server_that_is_down_at_first_is_found_when_it_is_up() -> None:
    async with raw(modern()) as gone:
        pass
    async with upstream_of(gone) as upstream:
        for _ in range(2):
            with pytest.raises(UpstreamError, match="refused") as caught:
                await upstream.request(call())
            assert caught.value.error_type is ErrorType.UPSTREAM_UNREACHABLE

        async with raw(modern(), port=gone.port) as server:
            assert value(await upstream.request(call()))["content"] == TEXT["content"]
            assert len(server.calls) == 1


@pytest.mark.parametrize("server_of", [modern, legacy])
async def test_fifty_first_calls_at_once_negotiate_once(server_of: Any) -> None:
    async with raw(server_of()) as server, upstream_of(server) as upstream:
        await asyncio.gather(*(upstream.request(call()) for _ in range(50)))

        assert len(server.calls) == 50
        assert len(server.requests) - 50 == (1 if server_of is modern else 3)


async def test_fifty_first_calls_to_a_server_that_fails_all_fail_and_the_next_one_tries_again() -> None:
    async with raw(lambda _: [whole(b"", 503)]) as server, upstream_of(server) as upstream:
        outcomes = await asyncio.gather(*(upstream.request(call()) for _ in range(50)), return_exceptions=True)

        assert {type(outcome) for outcome in outcomes} == {UpstreamError}
        assert len(server.requests) == 2
        with pytest.raises(UpstreamError):
            await upstream.request(call())
        assert len(server.requests) == 4


async def test_a_caller_who_goes_away_during_the_handshake_does_not_end_it_for_the_others() -> None:
    go = asyncio.Event()

    def behave(request: Request) -> Steps:
        if request.message["method"] == "server/discover":
            return [go, answered(request, DISCOVERED)]
        return modern()(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        first, second = (asyncio.create_task(upstream.request(call())) for _ in range(2))
        assert await eventually(lambda: len(server.requests) == 1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        go.set()

        await second
        assert server.methods() == ["server/discover", "tools/call"]


async def test_a_handshake_that_takes_too_long_is_given_up() -> None:
    async with raw(lambda _: [Do.HOLD]) as server, upstream_of(server, timings={"handshake_s": 0.05}) as upstream:
        with pytest.raises(UpstreamError, match=r"handshake within 0\.05 s") as caught:
            await upstream.request(call())

        assert caught.value.error_type is ErrorType.UPSTREAM_TIMEOUT
        assert await eventually(lambda: server.open == 0)


async def test_closing_during_the_handshake_fails_those_who_wait_for_it() -> None:
    async with raw(lambda _: [Do.HOLD]) as server, upstream_of(server) as upstream:
        calling = asyncio.create_task(upstream.request(call()))
        assert await eventually(lambda: len(server.requests) == 1)

        await upstream.close()

        with pytest.raises(UpstreamError) as caught:
            await calling
        assert caught.value.error_type is ErrorType.UPSTREAM_UNREACHABLE


# -- a session that is gone


def forgetful(*, body: bool) -> Any:
    """A legacy server that forgets its first session after one call."""
    sessions: list[str] = []

    def behave(request: Request) -> Steps:
        if request.message.get("method") == "initialize":
            sessions.append(f"s-{len(sessions) + 1}")
            return legacy(session=sessions[-1])(request)
        if request.message.get("method") == "tools/call":
            gone = request.headers["mcp-session-id"] == "s-1" and request.message["params"]["arguments"].get("later")
            if gone:
                return [whole(json.dumps(error(request, -32600, "no such session")).encode() if body else b"", 404)]
        return legacy()(request)

    return behave


@pytest.mark.parametrize("body", [True, False])
async def test_a_session_that_is_gone_is_replaced_once_and_the_call_sent_again(*, body: bool) -> None:
    async with raw(forgetful(body=body)) as server, upstream_of(server) as upstream:
        await upstream.request(call())
        later = UpstreamRequest("tools/call", {"name": "act", "arguments": {"later": True}}, name="act")
        replies = await asyncio.gather(
            upstream.request(later),
            *(upstream.request(UpstreamRequest("tools/call", dict(later.params), name="act")) for _ in range(9)),
        )

        assert [value(reply) for reply in replies] == [TEXT] * 10
        assert server.methods().count("initialize") == 2
        assert later.http_status == 200
        assert 0 < later.acquired_ns <= later.sent_ns <= later.first_byte_ns <= later.done_ns


async def test_a_server_that_answers_404_to_everything_gets_a_call_twice_at_most() -> None:
    async with raw(legacy(lambda _: [whole(b"", 404)])) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="answered HTTP 404"):
            await upstream.request(call())

        assert len(server.calls) == 2
        assert server.methods().count("initialize") == 2


@pytest.mark.parametrize("server_of", [modern, lambda call: legacy(call, session=None)])
async def test_a_404_without_a_session_is_only_a_404(server_of: Any) -> None:
    async with raw(server_of(lambda _: [whole(b"", 404)])) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="answered HTTP 404"):
            await upstream.request(call())

        assert len(server.calls) == 1


async def test_the_phases_of_a_call_whose_new_session_hangs_are_reset() -> None:
    """The time that the handshake takes is the upstream's, not the gateway's."""
    opened: list[Request] = []

    def behave(request: Request) -> Steps:
        if request.message.get("method") == "tools/call":
            return [whole(json.dumps(error(request, -32600, "no such session")).encode(), 404)]
        if request.message.get("method") == "initialize":
            opened.append(request)
            return [Do.HOLD] if len(opened) == 2 else legacy()(request)
        return legacy()(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        request = call()
        calling = asyncio.create_task(upstream.request(request))
        assert await eventually(lambda: len(opened) == 2)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

        assert (request.acquired_ns, request.done_ns, request.http_status) == (0, 0, None)
        assert server.methods().count("tools/call") == 1
