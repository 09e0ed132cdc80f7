"""What an upstream's response over HTTP means, and what is sent again without one."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway.calls import ErrorType
from gateway.http1.client import ConnectionLimits
from gateway.http1.pool import DEFAULT_LIMITS
from gateway.upstream.base import UpstreamError, UpstreamRequest
from tests.http1.raw import (
    TEXT,
    Do,
    Request,
    Step,
    Steps,
    answered,
    error,
    eventually,
    head,
    modern,
    raw,
    result,
    whole,
)
from tests.upstream.http_rig import call, upstream_of, value

HTTP_ERROR = ErrorType.UPSTREAM_HTTP_ERROR
NO_MCP = ErrorType.UPSTREAM_PROTOCOL_ERROR
UNREACHABLE = ErrorType.UPSTREAM_UNREACHABLE


async def failure(behave: Any, limits: ConnectionLimits = DEFAULT_LIMITS) -> UpstreamError:
    """How a call to an upstream fails whose `tools/call` is `behave`; the next one works."""
    broken = [True]

    def once(request: Request) -> Steps:
        steps: Steps = behave(request) if broken else [answered(request, TEXT)]
        broken.clear()
        return steps

    async with raw(modern(once)) as server, upstream_of(server, limits=limits) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.request(call())
        assert len(server.calls) == 1  # never sent again

        assert value(await upstream.request(call())) == TEXT
        return caught.value


# -- answers


async def test_a_result_comes_back_with_its_size_and_the_time_of_every_phase() -> None:
    async with raw(modern()) as server, upstream_of(server) as upstream:
        sent = call()
        reply = await upstream.request(sent)

        assert value(reply) == {**TEXT, "resultType": "complete"}
        assert reply.size == len(json.dumps(result(server.calls[0], {**TEXT, "resultType": "complete"})))
        assert sent.http_status == 200
        assert 0 < sent.acquired_ns <= sent.sent_ns <= sent.first_byte_ns <= sent.done_ns


async def test_a_results_bytes_are_the_upstreams_own() -> None:
    odd = b'{ "content" : [], "x\\u0041": 1.50e+0 , "big":123456789012345678901234567890,"\xc3\xa9":"\\/" }'
    async with (
        raw(modern(lambda r: [whole(b'{"id":%d,"result":%b,"jsonrpc":"2.0"}' % (r.message["id"], odd))])) as server,
        upstream_of(server) as upstream,
    ):
        assert bytes((await upstream.request(call())).result) == odd  # type: ignore[arg-type]  # it is there


@pytest.mark.parametrize("status", [200, 400, 404, 500])
async def test_a_json_rpc_error_is_the_upstreams_answer_whatever_the_http_status(status: int) -> None:
    refusing = modern(lambda r: [whole(json.dumps(error(r, -32602, "no such path")).encode(), status)])
    async with raw(refusing) as server, upstream_of(server) as upstream:
        sent = call()
        reply = await upstream.request(sent)

        assert not reply.is_result
        assert msgspec.json.decode(reply.error) == {"code": -32602, "message": "no such path"}  # type: ignore[arg-type]
        assert sent.http_status == status


async def test_an_error_without_an_id_is_this_requests_as_nothing_else_is_under_way() -> None:
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"cannot read that"}}'
    async with raw(modern(lambda _: [whole(body, 400)])) as server, upstream_of(server) as upstream:
        assert not (await upstream.request(call())).is_result


@pytest.mark.parametrize(
    ("answer", "error_type", "says", "status"),
    [
        pytest.param(whole(b"<h1>oops</h1>", 500), HTTP_ERROR, "answered HTTP 500", 500, id="500"),
        pytest.param(whole(b"", 401, "www-authenticate: Bearer"), HTTP_ERROR, "answered HTTP 401", 401, id="401"),
        pytest.param(whole(b"slow down", 429), HTTP_ERROR, "answered HTTP 429", 429, id="429"),
        pytest.param(whole(b"{}", 503), HTTP_ERROR, "answered HTTP 503", 503, id="503 with JSON"),
        pytest.param(whole(b"", 302, "location: https://x/mcp/"), HTTP_ERROR, "'https://x/mcp/'", 302, id="redirect"),
        pytest.param(whole(b"", 307), HTTP_ERROR, "redirects (HTTP 307)", 307, id="redirect to nowhere"),
        pytest.param(whole(b"", 202), NO_MCP, "HTTP 202 without a JSON-RPC response", 202, id="202 to a request"),
        pytest.param(head(204), NO_MCP, "HTTP 204 without a JSON-RPC response", 204, id="204"),
        pytest.param(whole(b""), NO_MCP, "HTTP 200 without a JSON-RPC response", 200, id="nothing"),
        pytest.param(whole(b"<html>"), NO_MCP, "not JSON-RPC", 200, id="no JSON"),
        pytest.param(whole(b'{"jsonrpc":"2.0","id":1,"resul'), NO_MCP, "not JSON-RPC", 200, id="half a message"),
        pytest.param(whole(b'{"id":"\xff"}'), NO_MCP, "not JSON-RPC", 200, id="no UTF-8"),
        pytest.param(whole(b"[" * 100_000), NO_MCP, "not JSON-RPC", 200, id="too deep"),
        pytest.param(whole(b"[]"), NO_MCP, "not JSON-RPC", 200, id="a batch"),
        pytest.param(whole(b"3"), NO_MCP, "not JSON-RPC", 200, id="a number"),
        pytest.param(whole(b"HTTP/1.1"), NO_MCP, "not JSON-RPC", 200, id="HTTP in HTTP"),
        pytest.param(whole(b'{"jsonrpc":"2.0","result":{}}'), NO_MCP, "not the response", 200, id="no id"),
        pytest.param(whole(b'{"jsonrpc":"2.0","id":null,"result":{}}'), NO_MCP, "not the response", 200, id="id null"),
        pytest.param(whole(b'{"jsonrpc":"2.0","id":true,"result":{}}'), NO_MCP, "not JSON-RPC", 200, id="id true"),
        pytest.param(whole(b'{"id":987654,"result":{}}'), NO_MCP, "not the response", 200, id="another's id"),
        pytest.param(whole(b'{"id":987654,"error":{"code":1}}'), NO_MCP, "not the response", 200, id="its error"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", NO_MCP, "no HTTP/1.1", None, id="no HTTP"),
        pytest.param(head(200, "content-length: 9") + b"half", NO_MCP, "in the middle", None, id="cut"),
    ],
)  # fmt: skip
async def test_an_answer_that_is_none_says_what_is_wrong_with_it(
    answer: bytes, error_type: ErrorType, says: str, status: int | None
) -> None:
    error = await failure(lambda _: [answer] if status is not None else [answer, Do.CLOSE])

    assert (error.error_type, error.http_status) == (error_type, status)
    assert says in str(error)


@pytest.mark.parametrize("members", [{"result": None}, {"result": 5}, {"result": "text"}, {"result": []}])
async def test_a_result_of_any_kind_is_handed_on_as_its_meaning_is_not_this_layers(members: dict[str, Any]) -> None:
    def behave(request: Request) -> Steps:
        return [whole(json.dumps({"jsonrpc": "2.0", "id": request.message["id"], **members}).encode())]

    async with raw(modern(behave)) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(call())) == members["result"]


@pytest.mark.parametrize("members", [{}, {"result": {}, "id": 3.5}, {"method": "tools/call"}])
async def test_a_message_without_result_and_error_is_no_answer(members: dict[str, Any]) -> None:
    error = await failure(lambda r: [whole(json.dumps({"id": r.message["id"], **members}).encode())])

    assert error.error_type is NO_MCP


async def test_an_http_error_with_a_result_in_it_is_an_http_error() -> None:
    error = await failure(lambda r: [whole(json.dumps(result(r, TEXT)).encode(), 500)])

    assert (error.error_type, error.http_status) == (HTTP_ERROR, 500)


async def test_what_an_upstream_answered_instead_is_kept_for_the_record_but_not_more_than_a_piece() -> None:
    error = await failure(lambda _: [whole(b"x" * 1_000_000, 500)])

    assert error.response == b"x" * 65536


async def test_an_answer_that_is_too_large_is_given_up() -> None:
    error = await failure(lambda _: [whole(b" " * 100_001), Do.HOLD], ConnectionLimits(response_bytes=100_000))

    assert (error.error_type, str(error)) == (NO_MCP, "answered with more than 100000 bytes")


async def test_the_error_names_a_redirects_target_without_its_query_which_may_hold_a_key() -> None:
    error = await failure(lambda _: [whole(b"", 302, f"location: https://x/mcp?key=s3cret#s3cret{'y' * 1000}")])

    assert "https://x/mcp" in str(error)
    assert "s3cret" not in str(error)
    assert len(str(error)) < 400


# -- what is sent again


@pytest.mark.parametrize("goodbye", [Do.CLOSE, Do.RESET])
@pytest.mark.parametrize("repeatable", [True, False])
async def test_only_what_may_be_repeated_is_sent_again_when_a_kept_connection_closes_on_it(
    goodbye: Step, *, repeatable: bool
) -> None:
    turns: list[Step | None] = [goodbye, None]
    behave = modern(lambda r: [turns.pop(0) or answered(r, TEXT)])
    async with raw(behave) as server, upstream_of(server) as upstream:
        await upstream.request(UpstreamRequest("tools/list", {}, repeatable=True))  # there is a kept connection now
        if repeatable:
            assert value(await upstream.request(call(repeatable=True))) == TEXT
        else:
            with pytest.raises(UpstreamError, match="closed the connection before it answered") as caught:
                await upstream.request(call())
            assert caught.value.error_type is UNREACHABLE

        assert len(server.calls) == (2 if repeatable else 1)


async def test_what_may_be_repeated_is_sent_again_once_only() -> None:
    async with raw(modern(lambda _: [Do.CLOSE])) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="before it answered"):
            await upstream.request(call(repeatable=True))

        assert len(server.calls) == 2


async def test_what_may_be_repeated_is_not_sent_again_when_its_answer_had_begun() -> None:
    behave = modern(lambda _: [head(200, "content-length: 9") + b"half", Do.CLOSE])
    async with raw(behave) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="in the middle") as caught:
            await upstream.request(call(repeatable=True))

        assert caught.value.error_type is NO_MCP
        assert len(server.calls) == 1


async def test_a_new_connection_that_closes_on_a_request_is_not_tried_again() -> None:
    def behave(request: Request) -> Steps:
        return [Do.CLOSE] if request.message["method"] == "tools/call" else [*modern()(request), Do.CLOSE]

    async with raw(behave) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError):
            await upstream.request(call(repeatable=True))

        assert len(server.calls) == 1


async def test_a_connection_that_was_closed_between_two_calls_is_not_noticed() -> None:
    async with raw(modern(lambda r: [answered(r, TEXT), Do.CLOSE])) as server, upstream_of(server) as upstream:
        for number in range(1, 6):
            assert value(await upstream.request(call())) == TEXT
            assert await eventually(lambda number=number: server.closed == number)  # type: ignore[misc]  # bound at once

        assert len(server.calls) == 5


# -- whose answer it is


@pytest.mark.parametrize("where", ["with the first", "behind the first"])
async def test_a_second_answer_to_one_call_is_never_another_calls(where: str) -> None:
    def twice(request: Request) -> Steps:
        text = {"content": [{"type": "text", "text": str(request.message["params"]["arguments"])}]}
        one, two = answered(request, text), answered(request, {"content": "the second"})
        return [one + two] if where == "with the first" else [one, two]

    async with raw(modern(twice)) as server, upstream_of(server) as upstream:
        for number in range(10):
            sent = UpstreamRequest("tools/call", {"name": "act", "arguments": {"n": number}}, name="act")
            outcome = await asyncio.gather(upstream.request(sent), return_exceptions=True)
            if isinstance(outcome[0], BaseException):  # its bytes came between: said, never handed on
                assert isinstance(outcome[0], UpstreamError)
            else:
                assert value(outcome[0])["content"][0]["text"] == str({"n": number})

        assert len(server.calls) == 10


async def test_after_an_answer_with_another_id_the_connection_is_not_trusted_any_more() -> None:
    """The real answer may still come: it must not meet the next call."""
    behave = modern(lambda _: [whole(b'{"id":987654,"result":{}}'), Do.HOLD])
    async with raw(behave) as server, upstream_of(server) as upstream:
        await upstream.request(UpstreamRequest("tools/list", {}, repeatable=True))
        with pytest.raises(UpstreamError, match="not the response"):
            await upstream.request(call())

        assert await eventually(lambda: server.open == 0)


async def test_an_answer_before_the_request_is_not_taken_for_the_requests_answer() -> None:
    early = whole(b'{"jsonrpc":"2.0","id":987654,"result":{"content":[]}}')
    async with raw(modern(), greet=[early]) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError):
            await upstream.request(call())

        assert server.calls == []


async def test_every_one_of_many_concurrent_calls_gets_its_own_answer() -> None:
    def echo(request: Request) -> Steps:
        return [answered(request, {"n": request.message["params"]["arguments"]["n"]})]

    async with raw(modern(echo)) as server, upstream_of(server, most=7) as upstream:
        exchanges = [
            UpstreamRequest("tools/call", {"name": "act", "arguments": {"n": n}}, name="act") for n in range(200)
        ]
        replies = await asyncio.gather(*(upstream.request(sent) for sent in exchanges))

        assert [value(reply)["n"] for reply in replies] == list(range(200))
        assert server.accepted <= 7
        assert len({request.message["id"] for request in server.requests}) == len(server.requests)


# -- cancelling


async def test_a_cancelled_call_closes_its_connection_and_no_other() -> None:
    def behave(request: Request) -> Steps:
        held = request.message["params"]["arguments"].get("hold")
        return [Do.HOLD] if held else [answered(request, TEXT)]

    async with raw(modern(behave)) as server, upstream_of(server) as upstream:
        await upstream.request(call())
        held = UpstreamRequest("tools/call", {"name": "act", "arguments": {"hold": True}}, name="act")
        calling = asyncio.create_task(upstream.request(held))
        assert await eventually(lambda: len(server.calls) == 2)
        await upstream.request(call())
        calling.cancel()

        with pytest.raises(asyncio.CancelledError):
            await calling
        assert await eventually(lambda: server.open == 1)
        assert value(await upstream.request(call())) == TEXT
        assert server.accepted == 2


async def test_a_call_that_is_cancelled_while_it_waits_for_a_connection_is_not_sent() -> None:
    go = asyncio.Event()
    async with raw(modern(lambda r: [go, answered(r, TEXT)])) as server, upstream_of(server, most=1) as upstream:
        first = asyncio.create_task(upstream.request(call()))
        assert await eventually(lambda: len(server.calls) == 1)
        second, third = (asyncio.create_task(upstream.request(call())) for _ in range(2))
        await asyncio.sleep(0)
        second.cancel()
        go.set()
        outcomes = await asyncio.gather(first, second, third, return_exceptions=True)

        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert len(server.calls) == 2
