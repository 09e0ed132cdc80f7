"""What servers ask a legacy client for while its call runs, whatever era they speak; and cancelling, log levels."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import (
    COMPLETE,
    DISCOVERED,
    SSE_END,
    SSE_HEAD,
    TEXT,
    Do,
    Request,
    Steps,
    answered,
    event,
    raw,
    result,
)
from tests.http1.raw import eventually as comes
from tests.http1.raw import legacy as legacy_server
from tests.http1.raw import modern as modern_server
from tests.relay.clients import CAN_ALL, Stream, connected
from tests.relay.rig import PATH, assert_times_add_up, legacy, legacy_call, rig

ELICIT = {"method": "elicitation/create", "params": {"message": "Name?", "requestedSchema": {"type": "object"}}}
SAMPLE = {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 5}}
ANSWER = {"action": "accept", "content": {"name": "Ada"}}
SAMPLED = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "hi"}}
DONE = {**TEXT, "resultType": "complete"}
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


def asks(**requests: Any) -> dict[str, Any]:
    return {"resultType": "input_required", "inputRequests": requests, "requestState": "theirs"}


def in_rounds(*rounds: dict[str, Any]) -> Any:
    """A modern server's calls: each is answered by the next round, the last one again and again."""
    left = list(rounds)

    def behave(request: Request) -> Steps:
        return [answered(request, left.pop(0) if len(left) > 1 else left[0])]

    return behave


def asking(question: dict[str, Any], has_answer: asyncio.Event) -> Any:
    """A legacy server's call, which asks and waits for the answer."""

    def behave(request: Request) -> Steps:
        asked = {"jsonrpc": "2.0", "id": "q-1", **question}
        return [SSE_HEAD, event(asked), has_answer, event(result(request, TEXT)), SSE_END]

    return behave


async def test_input_required_of_a_modern_server_becomes_a_request_to_the_legacy_client(
    tmp_path: Path,
) -> None:
    behave = in_rounds(asks(user=ELICIT, model=SAMPLE), DONE)
    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        async with connected(relay) as client, client.call() as stream:
            first, second = await stream.next(), await stream.next()
            assert {first["method"]: first["params"], second["method"]: second["params"]} == {
                ELICIT["method"]: ELICIT["params"],
                SAMPLE["method"]: SAMPLE["params"],
            }
            assert first["id"] != second["id"]
            for request in (second, first):
                answer = ANSWER if request["method"] == ELICIT["method"] else SAMPLED
                assert await client.answer(request, answer) == 202
            last = await stream.next()
            assert (last["id"], last["result"]) == (1, TEXT)
            assert await stream.next() is None

        before, after = (call.message["params"] for call in server.calls)
        assert before["_meta"][CAPABILITIES] == CAN_ALL
        assert before["_meta"]["io.modelcontextprotocol/clientInfo"] == {"name": "old", "version": "1"}
        assert "inputResponses" not in before
        assert (after["inputResponses"], after["requestState"]) == ({"user": ANSWER, "model": SAMPLED}, "theirs")
    assert relay.end.status == "success"
    assert_times_add_up(relay.end)


async def test_one_call_may_have_many_rounds_of_input(tmp_path: Path) -> None:
    behave = in_rounds(asks(a=ELICIT), asks(b=ELICIT), asks(c=ELICIT), DONE)
    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        async with connected(relay) as client, client.call() as stream:
            for _ in range(3):
                await client.answer(await stream.next(), ANSWER)
            assert (await stream.next())["result"] == TEXT
        assert [list(call.message["params"].get("inputResponses", ())) for call in server.calls] == [
            [],
            ["a"],
            ["b"],
            ["c"],
        ]
    assert len(relay.ends) == len(relay.starts) == 1


async def test_a_legacy_servers_request_reaches_the_legacy_client_with_another_id(tmp_path: Path) -> None:
    has_answer = asyncio.Event()
    async with raw(legacy_server(asking(ELICIT, has_answer))) as server, rig(tmp_path, {"files": server}) as relay:
        async with connected(relay) as client, client.call() as stream:
            request = await stream.next()
            assert (request["method"], request["params"]) == (ELICIT["method"], ELICIT["params"])
            await client.answer(request, ANSWER)
            assert await comes(lambda: any("result" in r.message for r in server.requests))
            has_answer.set()
            assert (await stream.next())["result"] == TEXT

        (answer,) = (r.message for r in server.requests if "result" in r.message)
        assert answer == {"jsonrpc": "2.0", "id": "q-1", "result": ANSWER}
        declared = [
            r.message["params"]["capabilities"] for r in server.requests if r.message.get("method") == "initialize"
        ]
        assert CAN_ALL in declared
    assert relay.end.status == "success"


async def test_a_clients_error_cancels_an_elicitation_and_otherwise_ends_the_call(tmp_path: Path) -> None:
    behave = in_rounds(asks(user=ELICIT), asks(model=SAMPLE))
    refusal = {"code": -1, "message": "the user said no"}
    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        async with connected(relay) as client, client.call() as stream:
            await client.answer(await stream.next(), error=refusal)
            await client.answer(await stream.next(), error=refusal)
            told = (await stream.next())["result"]
            assert told["isError"] is True
            assert "the user said no" in told["content"][0]["text"]
        assert server.calls[1].message["params"]["inputResponses"] == {"user": {"action": "cancel"}}
    assert (relay.end.error_type, len(relay.ends)) == ("tool_error", 1)


async def test_a_client_is_not_asked_for_what_it_did_not_declare(tmp_path: Path) -> None:
    behave = in_rounds(asks(user=ELICIT, model=SAMPLE))
    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        async with connected(relay, {"elicitation": {}}) as client:
            told = (await client.post("tools/call", {"name": "files__act"})).json()["result"]
        assert told["isError"] is True
        assert '{"sampling":{}}' in told["content"][0]["text"]
        assert server.calls[0].message["params"]["_meta"][CAPABILITIES] == {"elicitation": {}}
        assert len(server.calls) == 1
    assert relay.end.error_type == "tool_error"


async def test_a_client_without_a_session_cannot_be_asked(tmp_path: Path) -> None:
    async with (
        raw(modern_server(in_rounds(asks(user=ELICIT)))) as server,
        rig(tmp_path, {"files": server}) as relay,
    ):
        answer = (await relay.post(legacy_call())).json()
        assert answer["error"]["data"]["error_type"] == "upstream_protocol_error"
        assert server.calls[0].message["params"]["_meta"][CAPABILITIES] == {}


@pytest.mark.parametrize("era", [modern_server, legacy_server])
async def test_the_timeout_of_a_prompt_pauses_while_its_client_is_asked(tmp_path: Path, era: Any) -> None:
    has_answer = asyncio.Event()
    rounds = in_rounds(asks(user=ELICIT), {"resultType": "complete", "messages": []})
    own = rounds if era is modern_server else asking(ELICIT, has_answer)

    def behave(request: Request) -> Steps:
        message = request.message
        if "result" in message:
            has_answer.set()
        match message.get("method"):
            case "prompts/get":
                return list(own(request))
            case "server/discover" if era is modern_server:
                return [answered(request, {**DISCOVERED, "capabilities": {"prompts": {}}})]
            case "initialize":
                return [answered(request, {"protocolVersion": "2025-11-25", "capabilities": {"prompts": {}}})]
            case _:
                return list(era()(request))

    async with (
        raw(behave) as server,
        rig(tmp_path, {"files": {"url": server.url, "timeout": 1.0}}) as relay,
        connected(relay) as client,
    ):
        body = legacy("prompts/get", {"name": "files__hello"})[1]
        async with client.http.stream("POST", PATH, json=body, headers=client.headers) as response:
            stream = Stream(response)
            request = await stream.next()
            assert request["params"] == ELICIT["params"]
            await asyncio.sleep(1.1)
            await client.answer(request, ANSWER)
            assert "resultType" not in (await stream.next())["result"]
    (operation,) = [one for one in relay.operations("server") if one.method == "prompts/get"]
    assert operation.error_type is None


async def test_a_response_from_another_session_is_ignored(tmp_path: Path) -> None:
    async with (
        raw(modern_server(in_rounds(asks(user=ELICIT), DONE))) as server,
        rig(tmp_path, {"files": server}) as relay,
        connected(relay) as client,
        connected(relay, token="bot") as other,
        client.call() as stream,
    ):
        request = await stream.next()
        assert await other.answer(request, {"action": "decline"}) == 202
        assert await client.answer(request, ANSWER) == 202
        await stream.next()
        assert server.calls[1].message["params"]["inputResponses"] == {"user": ANSWER}


async def test_the_timeout_of_a_call_pauses_while_its_client_is_asked(tmp_path: Path) -> None:
    settings = {"url": "", "timeout": 1.0}
    async with (
        raw(modern_server(in_rounds(asks(user=ELICIT), DONE))) as server,
        rig(tmp_path, {"files": {**settings, "url": server.url}}) as relay,
        connected(relay) as client,
        client.call() as stream,
    ):
        request = await stream.next()
        await asyncio.sleep(1.1)
        await client.answer(request, ANSWER)
        assert (await stream.next())["result"] == TEXT
    assert relay.end.status == "success"


# -- cancelling


@pytest.mark.parametrize("session", [True, False], ids=["in a session", "stateless"])
async def test_a_call_that_its_client_cancels_ends_upstream_and_gets_no_answer(
    tmp_path: Path, *, session: bool
) -> None:
    async with (
        raw(modern_server(lambda _: [Do.HOLD])) as server,
        rig(tmp_path, {"files": server}) as relay,
        connected(relay, session=session) as client,
    ):
        calling = asyncio.create_task(client.post("tools/call", {"name": "files__act"}, id_=7))
        assert await comes(lambda: len(server.calls) == 1)
        for wrong in ("7", 8):
            await client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": wrong}})
        assert not calling.done()
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        assert (await client.send(cancelled)).status_code == 202
        answer = await calling
        assert (answer.status_code, answer.content) == (200, b"")
        assert await comes(lambda: server.open == 0 or server.closed > 0)
    assert relay.end.error_type == "cancelled"


async def test_a_client_cannot_cancel_a_call_of_another(tmp_path: Path) -> None:
    go = asyncio.Event()
    cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
    async with (
        raw(modern_server(lambda r: [go, answered(r, DONE)])) as server,
        rig(tmp_path, {"files": server}) as relay,
        connected(relay) as client,
        connected(relay, token="bot") as bot,
        connected(relay) as second,
    ):
        calling = asyncio.create_task(client.post("tools/call", {"name": "files__act"}, id_=7))
        assert await comes(lambda: len(server.calls) == 1)
        await bot.send(cancelled)
        await second.send(cancelled)
        await relay.post((legacy("ping")[0], cancelled))
        headers = {**legacy("ping")[0], "mcp-protocol-version": "2026-07-28"}
        await relay.post((headers, cancelled))
        go.set()
        assert (await calling).json()["result"] == TEXT
    assert relay.end.status == "success"


# -- log levels and progress


def logs(*levels: str) -> Any:
    def behave(request: Request) -> Steps:
        said = [
            {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": level, "data": level}}
            for level in levels
        ]
        return [SSE_HEAD, *(event(one) for one in said), event(result(request, DONE)), SSE_END]

    return behave


@pytest.mark.parametrize("era", [modern_server, legacy_server])
@pytest.mark.parametrize(
    ("level", "seen"),
    [(None, ["info", "error"]), ("debug", ["debug", "info", "error"]), ("warning", ["error"])],
)
async def test_a_session_gets_log_messages_from_its_level_on(
    tmp_path: Path, era: Any, level: str | None, seen: list[str]
) -> None:
    async with (
        raw(era(logs("debug", "info", "error"))) as server,
        rig(tmp_path, {"files": server}) as relay,
        connected(relay) as client,
    ):
        if level is not None:
            assert (await client.post("logging/setLevel", {"level": level})).json()["result"] == {}
        async with client.call() as stream:
            got = []
            while (message := await stream.next()) is not None:
                got.append(message.get("params", {}).get("level", "the answer"))
        assert got == [*seen, "the answer"]
        asked = server.calls[0].message["params"].get("_meta", {}).get("io.modelcontextprotocol/logLevel")
        assert asked == ((level or "info") if era is modern_server else None)


async def test_an_unknown_log_level_is_rejected_and_a_level_needs_a_session(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay, connected(relay) as client:
        assert (await client.post("logging/setLevel", {"level": "loud"})).json()["error"]["code"] == -32602
        del client.headers["mcp-session-id"]
        assert (await client.post("logging/setLevel", {"level": "info"})).json()["error"]["code"] == -32601
    assert [operation.error_type for operation in relay.operations("server")[1:]] == ["-32602", "-32601"]


async def test_a_legacy_client_sees_nothing_of_the_modern_era_in_a_result(tmp_path: Path) -> None:
    modern_result = {**COMPLETE, **TEXT, "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "x"}, "own": 1}}
    async with (
        raw(modern_server(in_rounds(modern_result))) as server,
        rig(tmp_path, {"files": server}) as relay,
    ):
        assert (await relay.post(legacy_call())).json()["result"] == {**TEXT, "_meta": {"own": 1}}
