"""A legacy server's requests during a call: which client gets them, what is refused, and when they end."""

import asyncio
import json
from typing import Any

import pytest
from msgspec import Raw as RawJson

from gateway.errors import CallscopeError
from gateway.mcp import jsonrpc
from gateway.upstream.base import Client, UpstreamRequest, UpstreamResponse
from tests.http1.raw import (
    SSE_END,
    SSE_HEAD,
    TEXT,
    Do,
    Request,
    Step,
    Steps,
    answered,
    event,
    eventually,
    legacy,
    modern,
    raw,
    result,
    whole,
)
from tests.upstream.http_rig import upstream_of, value

ELICIT = {"jsonrpc": "2.0", "id": "q-1", "method": "elicitation/create", "params": {"message": "who?"}}
FORM: dict[str, Any] = {"elicitation": {}}


class FakeClient:
    """A client of whom everything is asked one after the other; `answers` says what it does."""

    def __init__(self, reply: UpstreamResponse | CallscopeError | None) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.left = 0
        self._reply = reply

    async def ask(self, method: str, params: RawJson) -> UpstreamResponse:
        self.asked.append((method, bytes(params)))
        if self._reply is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.left += 1
        if isinstance(self._reply, CallscopeError):
            raise self._reply
        assert self._reply is not None
        return self._reply

    def call(self, can: Any = FORM) -> UpstreamRequest:
        client = Client(jsonrpc.raw(can), self.ask)
        return UpstreamRequest("tools/call", {"name": "act"}, name="act", token_id="alice", client=client)


ACCEPTED = UpstreamResponse(RawJson(b'{"action":"accept","content":{"n":1.50}}'))


def asking(*questions: Any, then: tuple[Step, ...] = ()) -> Any:
    """A legacy server that asks in the stream of the call and ends it when all questions have an answer."""
    answers = asyncio.Event()
    left = {one["id"] for one in questions}
    ordinary = legacy(
        lambda r: [SSE_HEAD, *(event(one) for one in questions), *then, answers, event(result(r, TEXT)), SSE_END]
    )

    def behave(request: Request) -> Steps:
        if request.verb == "GET":
            return [whole(b"", 405)]
        if request.message and "method" not in request.message:
            left.discard(request.message["id"])
            if not left:
                answers.set()
            return [whole(b"", 202)]
        return ordinary(request)

    return behave


def answers(server: Any) -> dict[Any, Any]:
    return {r.message["id"]: r.message for r in server.requests if r.message and "method" not in r.message}


async def test_a_server_request_goes_to_the_client_of_the_call_and_its_response_back_unchanged() -> None:
    person = FakeClient(ACCEPTED)
    async with raw(asking(ELICIT)) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(person.call())) == TEXT

        assert person.asked == [("elicitation/create", b'{"message":"who?"}')]
        [answer] = [r for r in server.requests if b'"q-1"' in r.body]
        assert b'{"action":"accept","content":{"n":1.50}}' in answer.body
        assert answer.headers["mcp-session-id"] == "s-1"


async def test_a_clients_refusal_is_the_servers_answer() -> None:
    refusal = jsonrpc.error_object(-1, "User rejected sampling request")
    async with raw(asking(ELICIT)) as server, upstream_of(server) as upstream:
        await upstream.request(FakeClient(UpstreamResponse(error=refusal)).call())

        assert answers(server)["q-1"]["error"] == {"code": -1, "message": "User rejected sampling request"}


async def test_a_client_that_is_gone_is_an_error_to_the_server() -> None:
    async with raw(asking(ELICIT)) as server, upstream_of(server) as upstream:
        await upstream.request(FakeClient(CallscopeError("the client went away")).call())

        assert answers(server)["q-1"]["error"] == {"code": -32603, "message": "the client went away"}


@pytest.mark.parametrize(
    ("question", "can"),
    [
        ({"method": "sampling/createMessage", "params": {}}, FORM),
        ({"method": "elicitation/create", "params": {"mode": "url"}}, FORM),
        ({"method": "roots/list"}, {}),
        ({"method": "tasks/list"}, {**FORM, "tasks": {}}),
        ({"method": "elicitation/create", "params": {"mode": 5}}, FORM),
    ],
)
async def test_a_request_for_a_capability_that_the_client_did_not_declare_is_refused(question: Any, can: Any) -> None:
    person = FakeClient(ACCEPTED)
    asked = {"jsonrpc": "2.0", "id": 9, **question}
    async with raw(asking(asked)) as server, upstream_of(server) as upstream:
        await upstream.request(person.call(can))

        assert answers(server)[9]["error"]["code"] == -32601
        assert person.asked == []


async def test_a_ping_is_answered_at_once_while_the_client_thinks() -> None:
    ping = {"jsonrpc": "2.0", "id": 10, "method": "ping"}
    behave = asking(ELICIT, ping)
    async with raw(behave) as server, upstream_of(server) as upstream:
        calling = asyncio.create_task(upstream.request(FakeClient(None).call()))

        assert await eventually(lambda: 10 in answers(server))
        assert "q-1" not in answers(server)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling


async def test_server_requests_that_wait_at_a_time_are_bounded() -> None:
    many = [{**ELICIT, "id": number} for number in range(100)]
    person = FakeClient(None)
    async with raw(asking(*many)) as server, upstream_of(server) as upstream:
        calling = asyncio.create_task(upstream.request(person.call()))

        assert await eventually(lambda: len(person.asked) == 16 and bool(answers(server)))
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert await eventually(lambda: person.left == 16)


async def test_a_server_request_ends_with_its_call() -> None:
    person = FakeClient(None)
    async with (
        raw(legacy(lambda r: [SSE_HEAD, event(ELICIT), event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        assert value(await upstream.request(person.call())) == TEXT

        assert await eventually(lambda: person.left == len(person.asked))
        assert answers(server) == {}


async def test_a_server_request_that_is_cancelled_gets_no_response() -> None:
    person = FakeClient(None)
    taken_back = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q-1"}}
    seen, go = asyncio.Event(), asyncio.Event()
    behave = legacy(lambda r: [SSE_HEAD, event(ELICIT), seen, event(taken_back), go, event(result(r, TEXT)), SSE_END])
    heard: list[bytes] = []

    async def notify(data: bytes) -> None:
        heard.append(data)

    async with raw(behave) as server, upstream_of(server) as upstream:
        request = person.call()
        request.notify = notify
        calling = asyncio.create_task(upstream.request(request))
        assert await eventually(lambda: len(person.asked) == 1)
        seen.set()
        assert await eventually(lambda: person.left == 1)
        go.set()

        assert value(await calling) == TEXT
        assert heard == []  # that was between the server and the gateway


async def test_a_modern_servers_request_is_passed_over_as_it_may_not_ask_that_way() -> None:
    person = FakeClient(ACCEPTED)
    async with (
        raw(modern(lambda r: [SSE_HEAD, event(ELICIT), event(result(r, TEXT)), SSE_END])) as server,
        upstream_of(server) as upstream,
    ):
        assert value(await upstream.request(person.call())) == TEXT
        assert server.methods() == ["server/discover", "tools/call"]
        assert person.asked == []


# -- on the session's own stream


def asking_elsewhere(go: asyncio.Event, question: Any) -> Any:
    """A legacy server that asks on the stream of the session (GET), as SDKs do that do not tie it to the call."""
    called = asyncio.Event()
    ordinary = legacy(lambda r: [go, answered(r, TEXT)])

    def behave(request: Request) -> Steps:
        if request.verb == "GET":
            return [SSE_HEAD, event(b""), called, event(question), Do.HOLD]
        if request.message.get("method") == "tools/call":
            called.set()
        if request.message and "method" not in request.message:
            go.set()
        return ordinary(request)

    return behave


async def test_a_server_request_on_the_sessions_stream_goes_to_the_only_client() -> None:
    person = FakeClient(ACCEPTED)
    async with raw(asking_elsewhere(asyncio.Event(), ELICIT)) as server, upstream_of(server) as upstream:
        assert value(await upstream.request(person.call())) == TEXT

        assert [method for method, _ in person.asked] == ["elicitation/create"]
        assert answers(server)["q-1"]["result"]["action"] == "accept"
        [stream] = [r for r in server.requests if r.verb == "GET"]
        assert stream.headers["accept"] == "text/event-stream"
        assert stream.headers["mcp-session-id"] == "s-1"
        assert "content-type" not in stream.headers


async def test_a_server_request_that_may_be_for_either_of_two_clients_is_refused() -> None:
    one, other = FakeClient(ACCEPTED), FakeClient(ACCEPTED)
    go = asyncio.Event()
    calls: list[Request] = []
    both = asyncio.Event()
    ordinary = legacy(lambda r: [go, answered(r, TEXT)])

    def behave(request: Request) -> Steps:
        if request.verb == "GET":
            return [SSE_HEAD, both, event(ELICIT), Do.HOLD]
        if request.message.get("method") == "tools/call":
            calls.append(request)
            if len(calls) == 2:
                both.set()
        if request.message and "method" not in request.message:
            go.set()
        return ordinary(request)

    async with raw(behave) as server, upstream_of(server) as upstream:
        await asyncio.gather(upstream.request(one.call()), upstream.request(other.call()))

        assert answers(server)["q-1"]["error"]["code"] == -32601
        assert one.asked == other.asked == []


async def test_a_session_whose_clients_take_no_requests_has_no_stream() -> None:
    async with raw(legacy()) as server, upstream_of(server) as upstream:
        await upstream.request(UpstreamRequest("tools/call", {"name": "act"}, name="act", token_id="alice"))

        assert {r.verb for r in server.requests} == {"POST"}


async def test_log_messages_and_progress_on_the_sessions_stream_reach_the_only_call() -> None:
    go, called = asyncio.Event(), asyncio.Event()
    said = [
        {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "another's"}},
        {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "mine"}},
    ]
    ordinary = legacy(lambda r: [go, answered(r, TEXT)])

    def behave(request: Request) -> Steps:
        if request.verb == "GET":
            return [SSE_HEAD, called, *(event(one) for one in said), Do.HOLD]
        if request.message.get("method") == "tools/call":
            called.set()
        return ordinary(request)

    heard: list[Any] = []

    async def notify(data: bytes) -> None:
        heard.append(json.loads(data))
        if len(heard) == 2:
            go.set()

    async with raw(behave) as server, upstream_of(server) as upstream:
        client = Client(jsonrpc.raw(FORM), FakeClient(ACCEPTED).ask, "debug")
        request = UpstreamRequest("tools/call", {"name": "act"}, name="act", client=client, notify=notify)
        request.meta = {"progressToken": RawJson(b'"mine"')}
        await upstream.request(request)

        assert heard == [said[0], said[2]]
