"""What a legacy server asks for while a modern client's request runs: the call waits, the client comes back for it."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.mcp import sse
from gateway.relay.input_required import MAX_PENDING
from tests.http1.raw import SSE_END, SSE_HEAD, TEXT, Raw, Request, Steps, event, raw, result, whole
from tests.http1.raw import eventually as comes
from tests.http1.raw import legacy as legacy_server
from tests.relay.rig import PATH, Rig, assert_times_add_up, bearer, listening, modern, rig, tool_call

CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CAN: dict[str, Any] = {CAPABILITIES: {"elicitation": {}, "sampling": {}}}
ELICIT = {"method": "elicitation/create", "params": {"message": "Name?", "requestedSchema": {"type": "object"}}}
SAMPLE = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}}
ADA = {"action": "accept", "content": {"name": "Ada"}}
SAID = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "hi"}}


@dataclass(slots=True)
class Asking:
    """A legacy server whose call asks one question after the other, each when the one before is answered."""

    questions: list[Any]
    answers: list[Any] = field(default_factory=list)
    cancelled: list[Any] = field(default_factory=list)
    withhold: bool = False
    """Whether it goes on when it has an answer."""
    _come: list[asyncio.Event] = field(default_factory=list)

    def __call__(self, request: Request) -> Steps:
        message = request.message
        if "result" in message or "error" in message:
            self.answers.append(message)
            if not self.withhold:
                self._come[len(self.answers) - 1].set()
            return [whole(b"", 202)]
        match message.get("method"):
            case "notifications/cancelled":
                self.cancelled.append(message["params"]["requestId"])
                return [whole(b"", 202)]
            case "prompts/get":
                return self._run(request)
            case _:
                return legacy_server(self._run)(request)

    def _run(self, request: Request) -> Steps:
        steps: list[Any] = [SSE_HEAD]
        for number, question in enumerate(self.questions):
            self._come.append(asyncio.Event())
            steps += [event({"jsonrpc": "2.0", "id": f"q{number}", **question}), self._come[-1]]
        return [*steps, event(result(request, TEXT)), SSE_END]


@asynccontextmanager
async def asking(folder: Path, *questions: Any) -> AsyncIterator[tuple[Asking, Raw, Rig]]:
    server = Asking(list(questions))
    async with raw(server) as upstream, rig(folder, {"files": upstream}) as relay:
        yield server, upstream, relay


def events(response: httpx.Response) -> list[Any]:
    return [json.loads(one.data) for one in sse.Parser().feed(response.content)]


def again(asked: Any, *answers: Any, **changes: Any) -> Any:
    """The retry of a call, with answers to the questions in their order."""
    headers, body = tool_call(**CAN)
    body["params"]["requestState"] = asked["requestState"]
    body["params"]["inputResponses"] = dict(zip(asked["inputRequests"], answers, strict=False))
    body["params"].update(changes)
    return headers, body


async def test_the_result_asks_for_input_and_the_retry_brings_it(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT) as (server, upstream, relay):
        first = await relay.post(tool_call(**CAN))
        asked = first.json()["result"]
        assert (first.status_code, asked["resultType"]) == (200, "input_required")
        assert list(asked["inputRequests"].values()) == [ELICIT]

        done = (await relay.post(again(asked, ADA))).json()["result"]
        assert (done["resultType"], done["content"]) == ("complete", TEXT["content"])
        assert server.answers == [{"jsonrpc": "2.0", "id": "q0", "result": ADA}]
        assert len(upstream.calls) == 1
    assert [call.status for call in relay.ends] == ["success", "success"]
    for call in relay.ends:
        assert_times_add_up(call)


async def test_each_rounds_request_state_is_valid_once(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT, SAMPLE) as (_, upstream, relay):
        one = (await relay.post(tool_call(**CAN))).json()["result"]
        two = (await relay.post(again(one, ADA))).json()["result"]
        assert list(two["inputRequests"].values()) == [SAMPLE]
        assert one["requestState"] != two["requestState"]
        for used in (one, one):
            refused = await relay.post(again(used, ADA))
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
        assert (await relay.post(again(two, SAID))).json()["result"]["content"] == TEXT["content"]
        refused = await relay.post(again(two, SAID))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
        assert len(upstream.calls) == 1


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"requestState": "cs1.changed.changed"}, id="a state that was changed"),
        pytest.param({"requestState": "of another server"}, id="a state of somebody else"),
        pytest.param({"requestState": 5}, id="a state that is no text"),
        pytest.param({"arguments": {"path": "/"}}, id="other arguments"),
        pytest.param({"inputResponses": []}, id="answers that are no object"),
    ],
)
async def test_an_invalid_retry_is_rejected_and_the_call_keeps_waiting(tmp_path: Path, changes: dict[str, Any]) -> None:
    async with asking(tmp_path, ELICIT) as (server, _, relay):
        asked = (await relay.post(tool_call(**CAN))).json()["result"]
        refused = await relay.post(again(asked, ADA, **changes))
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32602)
        assert server.answers == []
        assert (await relay.post(again(asked, ADA))).json()["result"]["resultType"] == "complete"
    failed = [call for call in relay.ends if call.status == "error"]
    assert [(call.error_type, call.jsonrpc_code) for call in failed] == [("jsonrpc_error", -32602)]


async def test_a_request_state_is_invalid_for_another_token(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT) as (server, _, relay):
        asked = (await relay.post(tool_call(**CAN))).json()["result"]
        assert (await relay.post(again(asked, ADA), token="bot")).json()["error"]["code"] == -32602
        assert server.answers == []


async def test_an_invalid_answer_is_rejected_and_a_missing_one_requested_again(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT) as (server, _, relay):
        asked = (await relay.post(tool_call(**CAN))).json()["result"]
        assert (await relay.post(again(asked, {"action": "dance"}))).json()["error"]["code"] == -32602
        repeated = (await relay.post(again(asked))).json()["result"]
        assert repeated["inputRequests"] == asked["inputRequests"]
        assert repeated["requestState"] != asked["requestState"]
        assert server.answers == []
        assert (await relay.post(again(repeated, ADA))).json()["result"]["resultType"] == "complete"


async def test_waiting_calls_of_a_token_are_bounded_and_the_oldest_is_cancelled(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT) as (server, upstream, relay):
        asked = [(await relay.post(tool_call(**CAN))).json()["result"] for _ in range(MAX_PENDING + 1)]
        assert await comes(lambda: bool(server.cancelled))
        assert server.cancelled == [upstream.calls[0].message["id"]]
        assert (await relay.post(again(asked[0], ADA))).json()["error"]["code"] == -32602


async def test_a_client_that_disconnects_during_a_round_cancels_the_call_upstream(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT, SAMPLE) as (server, upstream, relay):
        server.withhold = True
        headers, body = tool_call(**CAN)
        async with listening(relay) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            asked = (await relay.post((headers, body))).json()["result"]
            retry_headers, retry = again(asked, ADA)
            posting = asyncio.create_task(http.post(PATH, json=retry, headers={**retry_headers, **bearer("alice")}))
            assert await comes(lambda: bool(server.answers))
            posting.cancel()
            assert await comes(lambda: bool(server.cancelled))
        assert server.cancelled == [upstream.calls[0].message["id"]]
    assert [call.error_type for call in relay.ends] == [None, "cancelled"]


async def test_waiting_calls_end_with_the_relay(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT) as (_, upstream, relay):
        await relay.post(tool_call(**CAN))
        assert upstream.open > 0
    assert len(relay.ends) == len(relay.starts) == 1


async def test_a_client_without_capabilities_is_not_asked_for_input(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT) as (server, upstream, relay):
        answer = (await relay.post(tool_call())).json()["result"]
        assert answer["resultType"] == "complete"
        assert [message["error"]["code"] for message in server.answers] == [-32601]
        declared = [
            r.message["params"]["capabilities"] for r in upstream.requests if r.message.get("method") == "initialize"
        ]
        assert set(map(str, declared)) == {"{}"}


async def test_progress_goes_to_the_request_of_the_current_round_under_its_token(tmp_path: Path) -> None:
    come = asyncio.Event()

    def act(request: Request) -> Steps:
        def progress(value: int) -> bytes:
            params = {"progressToken": request.message["params"]["_meta"]["progressToken"], "progress": value}
            return event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

        question = event({"jsonrpc": "2.0", "id": 1, **ELICIT})
        return [SSE_HEAD, progress(1), question, come, progress(2), event(result(request, TEXT)), SSE_END]

    def behave(request: Request) -> Steps:
        if "result" in request.message:
            come.set()
        return legacy_server(act)(request)

    async with raw(behave) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        told, asked = events(await relay.post(tool_call(progressToken="one", **CAN)))
        assert told["params"] == {"progressToken": "one", "progress": 1}
        headers, body = again(asked["result"], ADA)
        body["params"]["_meta"]["progressToken"] = "two"
        told, done = events(await relay.post((headers, body)))
        assert told["params"] == {"progressToken": "two", "progress": 2}
        assert done["result"]["content"] == TEXT["content"]


async def test_prompts_wait_for_input_too(tmp_path: Path) -> None:
    async with asking(tmp_path, ELICIT) as (server, _, relay):
        headers, body = modern("prompts/get", {"name": "files__hello"}, **CAN)
        asked = (await relay.post((headers, body))).json()["result"]
        assert asked["resultType"] == "input_required"
        body["params"]["requestState"] = asked["requestState"]
        body["params"]["inputResponses"] = dict.fromkeys(asked["inputRequests"], ADA)
        assert (await relay.post((headers, body))).json()["result"]["resultType"] == "complete"
        assert len(server.answers) == 1
    assert [one.method for one in relay.operations("server")] == ["prompts/get", "prompts/get"]
    assert relay.ends == []
