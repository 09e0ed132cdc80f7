"""Answers as event streams: notifications first, the server's own requests in between, and streams that end oddly."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway.calls import ErrorType
from gateway.http1.client import ConnectionLimits
from gateway.mcp import sse
from gateway.upstream import http_transport
from gateway.upstream.base import UpstreamError
from tests.http1.raw import (
    SSE_END,
    SSE_HEAD,
    TEXT,
    Do,
    Drip,
    Request,
    Step,
    Steps,
    answered,
    chunk,
    error,
    event,
    eventually,
    head,
    legacy,
    modern,
    raw,
    result,
)
from tests.upstream.http_rig import call, upstream_of, value

PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
PING = {"jsonrpc": "2.0", "id": "s-7", "method": "ping"}


class Notified(list[Any]):
    """What came before the answer."""

    async def __call__(self, data: bytes) -> None:
        self.append(json.loads(data))


async def test_notifications_come_before_the_answer_in_their_order_and_byte_for_byte() -> None:
    odd = b'{"jsonrpc":"2.0", "method":"notifications/message","params":{"x\\u0041":1.0e0}}'
    got: list[bytes] = []

    async def notify(data: bytes) -> None:
        got.append(data)

    async with (
        raw(modern(lambda r: [SSE_HEAD, event(PROGRESS), event(odd), event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        assert value(await upstream.request(call(notify=notify))) == TEXT
        assert got == [json.dumps(PROGRESS).encode(), odd]


async def test_a_notification_is_handed_on_before_the_answer_has_come() -> None:
    go = asyncio.Event()
    async with (
        raw(modern(lambda r: [SSE_HEAD, event(PROGRESS), go, event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        notified = Notified()
        calling = asyncio.create_task(upstream.request(call(notify=notified)))
        assert await eventually(lambda: notified == [PROGRESS])
        assert not calling.done()
        go.set()
        assert value(await calling) == TEXT


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
async def test_events_end_their_lines_as_they_like_and_come_in_any_pieces(end: bytes) -> None:
    def behave(request: Request) -> Steps:
        return [Drip(SSE_HEAD + event(PROGRESS, end) + event(result(request, TEXT), end) + SSE_END)]

    async with raw(modern(behave)) as server, upstream_of(server) as upstream:
        notified = Notified()
        for _ in range(2):
            assert value(await upstream.request(call(notify=notified))) == TEXT

        assert notified == [PROGRESS, PROGRESS]


@pytest.mark.parametrize(
    "noise",
    [
        pytest.param(b": a comment\n\n", id="a comment"),
        pytest.param(b"id: 1\ndata: \n\n", id="an event only to resume at"),
        pytest.param(b"id: 1\nretry: 500\ndata:\n\n", id="another such"),
        pytest.param(b"event: ping\ndata: 2026-11-23\n\n", id="an event of another kind"),
        pytest.param(b"\xef\xbb\xbf\n\n", id="a byte-order mark"),
        pytest.param(b"unknown: field\n\n", id="an unknown field"),
    ],
)
async def test_what_is_no_message_is_passed_over(noise: bytes) -> None:
    async with (
        raw(modern(lambda r: [SSE_HEAD, chunk(noise), event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        assert value(await upstream.request(call())) == TEXT


async def test_an_error_may_come_as_an_event() -> None:
    async with (
        raw(modern(lambda r: [SSE_HEAD, event(error(r, -32602, "no")), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        reply = await upstream.request(call())

        assert msgspec.json.decode(reply.error) == {"code": -32602, "message": "no"}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        pytest.param([SSE_HEAD, SSE_END], "ended its event stream without a response", id="nothing"),
        pytest.param([SSE_HEAD, event(PROGRESS), SSE_END], "ended its event stream without", id="notifications only"),
        pytest.param([head(200, "content-type: text/event-stream"), Do.CLOSE], "without a response", id="to the end"),
        pytest.param([SSE_HEAD, chunk(b'data: {"jsonrpc"'), SSE_END], "without a response", id="half an event"),
        pytest.param([SSE_HEAD, event(PROGRESS), Do.CLOSE], "in the middle of its answer", id="cut"),
        pytest.param([SSE_HEAD, Do.RESET], "in the middle of its answer", id="reset"),
        pytest.param([SSE_HEAD, event(b"no json")], "not JSON-RPC", id="no JSON"),
        pytest.param([SSE_HEAD, event(b'{"id":"\xff"}')], "not JSON-RPC", id="no UTF-8"),
        pytest.param([SSE_HEAD, event(b"[]")], "not JSON-RPC", id="a batch"),
        pytest.param([SSE_HEAD, event(b'{"id":987654,"result":{}}')], "not the response", id="another's id"),
        pytest.param([SSE_HEAD, event({"id": 1 << 80, "method": "x"}), SSE_END], "without a response", id="huge id"),
        pytest.param([SSE_HEAD, event(b'{"id":1' + b"0" * 5000 + b',"method":"x"}')], "not JSON-RPC", id="a larger id"),
    ],
)
async def test_a_stream_without_an_answer_says_so_and_leaves_nothing_open(steps: Steps, says: str) -> None:
    turns = [steps]
    behave = modern(lambda r: turns.pop() if turns else [answered(r, TEXT)])
    async with raw(behave) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match=says) as caught:
            await upstream.request(call())
        assert caught.value.error_type is ErrorType.UPSTREAM_PROTOCOL_ERROR
        assert len(server.calls) == 1

        assert value(await upstream.request(call())) == TEXT
        assert await eventually(lambda: server.open == len(upstream._transport.pool._idle))


async def test_an_http_error_with_an_event_stream_is_an_http_error() -> None:
    behave = modern(lambda _: [head(500, "content-type: text/event-stream", "content-length: 2") + b"\n\n"])
    async with raw(behave) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="answered HTTP 500") as caught:
            await upstream.request(call())

        assert (caught.value.error_type, caught.value.http_status) == (ErrorType.UPSTREAM_HTTP_ERROR, 500)


async def test_an_event_that_is_too_large_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 100_000)
    async with (
        raw(modern(lambda _: [SSE_HEAD, *([chunk(b"data: " + b"x" * 50_000)] * 3), Do.HOLD])) as server,
        upstream_of(server) as upstream,
    ):
        with pytest.raises(UpstreamError, match="more than 100000 bytes") as caught:
            await upstream.request(call())

        assert caught.value.error_type is ErrorType.UPSTREAM_PROTOCOL_ERROR
        assert await eventually(lambda: server.open == 0)


# -- after the answer


async def test_the_first_answer_of_a_stream_counts() -> None:
    def twice(request: Request) -> Steps:
        return [SSE_HEAD + event(result(request, TEXT)) + event(result(request, {"content": "another"})) + SSE_END]

    async with raw(modern(twice)) as server, upstream_of(server) as upstream:
        for _ in range(3):
            assert value(await upstream.request(call())) == TEXT


async def test_the_connection_is_kept_after_a_stream() -> None:
    async with (
        raw(modern(lambda r: [SSE_HEAD, event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        for _ in range(10):
            assert value(await upstream.request(call())) == TEXT

        assert server.accepted <= 2  # the stream's end may still be on its way when the next call begins


@pytest.mark.parametrize("ending", [(Do.HOLD,), (chunk(b": still here\n\n"),) * 50 + (Do.HOLD,), (Do.CLOSE,)])
async def test_a_stream_that_stays_open_after_the_response_delays_no_call_and_is_closed(ending: Steps) -> None:
    limits = ConnectionLimits(linger_s=0.05)
    behave = modern(lambda r: [SSE_HEAD, event(result(r, TEXT)), *ending])
    async with raw(behave) as server, upstream_of(server, most=3, limits=limits) as upstream:
        for _ in range(5):
            assert value(await upstream.request(call())) == TEXT

        assert await eventually(lambda: server.open == 0)


# -- the server's own requests


async def test_a_ping_in_the_stream_is_answered_and_every_other_request_refused() -> None:
    asking = {"jsonrpc": "2.0", "id": 8, "method": "sampling/createMessage", "params": {"messages": []}}
    async with (
        raw(legacy(lambda r: [SSE_HEAD, event(PING), event(asking), event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        assert value(await upstream.request(call())) == TEXT

        assert await eventually(lambda: len(server.requests) == 6)
        answers = {answer["id"]: answer for answer in (request.message for request in server.requests[-2:])}
        assert answers["s-7"] == {"jsonrpc": "2.0", "id": "s-7", "result": {}}
        assert answers[8]["error"]["code"] == -32601
        assert "sampling/createMessage" in answers[8]["error"]["message"]
        assert {request.headers["mcp-session-id"] for request in server.requests[-2:]} == {"s-1"}


@pytest.mark.parametrize("goodbye", [Do.CLOSE, Do.RESET, b"garbage"])
async def test_a_server_that_does_not_take_the_answer_to_its_ping_still_answers_the_call(goodbye: Step) -> None:
    ordinary = legacy(lambda r: [SSE_HEAD, event(PING), event(result(r, TEXT)), SSE_END])

    def behave(request: Request) -> Steps:
        return [goodbye] if request.message.get("id") == "s-7" else ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        for _ in range(3):
            assert value(await upstream.request(call())) == TEXT


async def test_a_server_that_pings_without_end_does_not_get_an_answer_to_every_ping() -> None:
    pings = [event({**PING, "id": number}) for number in range(2000)]
    ordinary = legacy(lambda r: [SSE_HEAD + b"".join(pings), event(result(r, TEXT)), SSE_END])

    def behave(request: Request) -> Steps:
        return [Do.HOLD] if "method" not in request.message else ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(call())) == TEXT

        assert len(upstream._transport._background) <= 64


async def test_a_request_of_the_server_with_an_odd_id_does_no_harm() -> None:
    ids: list[Any] = [None, -1, 2**63, 2**200, "x" * 10_000, ""]
    asked = [event({"jsonrpc": "2.0", "id": id_, "method": "roots/list"}) for id_ in ids]
    async with (
        raw(legacy(lambda r: [SSE_HEAD, *asked, event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        assert value(await upstream.request(call())) == TEXT
        assert await eventually(lambda: len(server.requests) == 4 + len(ids))


async def test_a_client_that_is_slow_to_take_notifications_slows_the_upstream_down_and_gets_all_of_them() -> None:
    go = asyncio.Event()
    got: list[int] = []
    many = [event({**PROGRESS, "params": {"progress": n, "message": "x" * 100_000}}) for n in range(100)]

    async def slow(data: bytes) -> None:
        await go.wait()
        got.append(json.loads(data)["params"]["progress"])

    async with (
        raw(modern(lambda r: [SSE_HEAD, *many, event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        calling = asyncio.create_task(upstream.request(call(notify=slow)))
        assert await eventually(lambda: any(c._paused for c in upstream._transport.pool._open))
        go.set()

        assert value(await calling) == TEXT
        assert got == list(range(100))


# -- streams that break off and are resumed


def broken_off(*parts: bytes, then: Any) -> Any:
    """A legacy server whose answer to a call ends after `parts`; `then` is what it gives by GET."""
    ordinary = legacy(lambda _: [SSE_HEAD, *(chunk(part) for part in parts), Do.CLOSE])

    def behave(request: Request) -> Steps:
        steps: Steps = then(request) if request.verb == "GET" else ordinary(request)
        return steps

    return behave


def rest(server: Any, *before: Any) -> Steps:
    """The rest of the stream of the only call, in which it is answered."""
    (asked,) = server.calls
    return [SSE_HEAD, *(event(one) for one in before), event(result(asked, TEXT)), SSE_END]


async def test_a_broken_stream_is_resumed_from_its_last_id_and_the_call_not_repeated() -> None:
    servers: list[Any] = []
    said = b"id: e-1\nretry: 1\ndata: " + json.dumps(PROGRESS).encode() + b"\n\n"
    behave = broken_off(
        b"id: e-0\nretry: 1\ndata:\n\n", said, b"data: {half", then=lambda _: rest(servers[0], PROGRESS)
    )
    async with raw(behave) as server, upstream_of(server) as upstream:
        servers.append(server)
        notified = Notified()

        assert value(await upstream.request(call(notify=notified))) == TEXT
        assert notified == [PROGRESS, PROGRESS]
        [asked] = [r for r in server.requests if r.verb == "GET"]
        assert asked.headers["last-event-id"] == "e-1"
        assert asked.headers["mcp-session-id"] == "s-1"
        assert len(server.calls) == 1


@pytest.mark.parametrize("status", [404, 405, 500])
async def test_a_server_that_does_not_give_the_rest_has_broken_off(status: int) -> None:
    refusal = [head(status, "content-length: 0")]
    async with (
        raw(broken_off(b"id: e-0\nretry: 1\ndata:\n\n", then=lambda _: refusal)) as server,
        upstream_of(server) as upstream,
    ):
        with pytest.raises(UpstreamError, match="in the middle of its answer"):
            await upstream.request(call())

        assert [r.verb for r in server.requests].count("GET") == 1


async def test_a_server_that_breaks_off_again_and_again_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_transport, "MAX_RESUMES", 3)
    async with (
        raw(broken_off(b"id: e-0\nretry: 1\ndata:\n\n", then=lambda _: [SSE_HEAD, Do.CLOSE])) as server,
        upstream_of(server) as upstream,
    ):
        with pytest.raises(UpstreamError, match="in the middle of its answer"):
            await upstream.request(call())

        assert [r.verb for r in server.requests].count("GET") == 3


async def test_the_stream_of_a_modern_server_is_not_resumed_as_there_is_no_such_thing() -> None:
    cut: Steps = [SSE_HEAD, chunk(b"id: e-0\nretry: 1\ndata:\n\n"), Do.CLOSE]
    async with raw(modern(lambda _: cut)) as server, upstream_of(server) as upstream:
        with pytest.raises(UpstreamError, match="in the middle of its answer"):
            await upstream.request(call())

        assert {r.verb for r in server.requests} == {"POST"}
