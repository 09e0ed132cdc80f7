"""What servers ask clients for, between the eras."""

import json
from typing import Any

import pytest
from mcp_types.methods import parse_server_request, validate_server_result
from msgspec import UNSET, Raw

from gateway.mcp import capabilities, input_requests, jsonrpc, request_state
from gateway.mcp.capabilities import InvalidInputRequestError
from gateway.mcp.era_bridge import InvalidResultError
from gateway.mcp.input_requests import InputRefusedError, InputRequest, InvalidInputResponseError
from gateway.mcp.jsonrpc import Id, Response

FORM = {"message": "Who are you?", "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}}}
PAGE = {"mode": "url", "message": "Log in", "url": "https://x.example/login"}
SAMPLE = {"messages": [{"role": "user", "content": {"type": "text", "text": "hi"}}], "maxTokens": 9}
ACCEPTED = {"action": "accept", "content": {"name": "Ada"}}
SAMPLED = {"role": "assistant", "content": {"type": "text", "text": "hello"}, "model": "m"}
ROOTS = {"roots": [{"uri": "file:///home"}]}
QUESTIONS: dict[str, tuple[str, Any, Any]] = {
    "Elicit form": ("elicitation/create", FORM, ACCEPTED),
    "Elicit page": ("elicitation/create", PAGE, {"action": "accept"}),
    "Elicit declined": ("elicitation/create", FORM, {"action": "decline"}),
    "Elicit sampling": ("sampling/createMessage", SAMPLE, SAMPLED),
    "Elicit roots": ("roots/list", None, ROOTS),
}
each_question = pytest.mark.parametrize(("method", "params", "answer"), QUESTIONS.values(), ids=QUESTIONS)


def raws(members: dict[str, Any] | None) -> dict[str, Raw]:
    return {name: jsonrpc.raw(value) for name, value in (members or {}).items()}


def question(method: str, params: dict[str, Any] | None) -> InputRequest:
    return InputRequest(method, raws(params) if params is not None else UNSET)


def keys(asked: Any) -> list[str]:
    """The keys under which a modern client finds these requests."""
    return list(json.loads(bytes(input_requests.input_required(asked, "s")))["inputRequests"])


def required(**members: Any) -> input_requests.InputRequired:
    return input_requests.read_required(jsonrpc.raw({"resultType": "input_required", **members}))


# -- a legacy client with a stream, a modern server


@each_question
def test_a_legacy_client_is_asked_what_a_modern_server_requires_and_the_retry_has_its_answer(
    method: str, params: Any, answer: Any
) -> None:
    asked = {"method": method} if params is None else {"method": method, "params": params}
    found = required(inputRequests={"k": asked}, requestState="opaque é")
    sent = json.loads(input_requests.to_client_request("gw-1", found.requests["k"]))
    assert (sent["jsonrpc"], sent["id"], sent["method"]) == ("2.0", "gw-1", method)
    assert sent["params"].items() >= (params or {}).items()
    parse_server_request(method, "2025-11-25", sent["params"])

    answers = {"k": input_requests.from_client_response(found.requests["k"], Response(result=jsonrpc.raw(answer)))}
    call = {"name": "x", "arguments": Raw(b"{ }"), "_meta": 1, "inputResponses": {"old": 1}, "requestState": "old"}
    again = input_requests.retry_params(call, answers, found.request_state)
    assert again == {
        "name": "x",
        "arguments": Raw(b"{ }"),
        "inputResponses": {"k": jsonrpc.raw(answer)},
        "requestState": "opaque é",
    }


@pytest.mark.parametrize("state", ["s", ""])
def test_a_server_that_only_wants_to_be_called_again_gets_its_state_back_and_nothing_else(state: str) -> None:
    found = required(requestState=state)
    assert found.requests == {}
    assert input_requests.retry_params({"name": "x"}, {}, found.request_state) == {"name": "x", "requestState": state}


def test_a_server_that_gave_no_state_gets_none() -> None:
    found = required(inputRequests={"k": {"method": "roots/list"}})
    assert "requestState" not in input_requests.retry_params({"name": "x"}, {"k": Raw(b"{}")}, found.request_state)


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({}, id="neither requests nor state"),
        pytest.param({"requestState": 7}, id="a state that is no text"),
        pytest.param({"inputRequests": []}, id="no map"),
        pytest.param({"inputRequests": {"k": {"params": {}}}}, id="no method"),
        pytest.param({"inputRequests": {"k": {"method": "tools/call"}}}, id="another method"),
        pytest.param({"inputRequests": {"k": {"method": "roots/list", "params": 7}}}, id="params of no kind"),
    ],
)
def test_a_result_that_asks_for_nothing_that_may_be_asked_is_invalid(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidResultError):
        required(**members)


def test_an_error_to_an_elicitation_is_its_cancel_and_to_anything_else_the_end_of_the_call() -> None:
    refused = Response(error=jsonrpc.error_object(-1, "User rejected sampling"))
    assert json.loads(bytes(input_requests.from_client_response(question("elicitation/create", FORM), refused))) == {
        "action": "cancel"
    }
    with pytest.raises(InputRefusedError, match="sampling/createMessage: User rejected sampling"):
        input_requests.from_client_response(question("sampling/createMessage", SAMPLE), refused)
    with pytest.raises(InputRefusedError, match="gave no reason"):
        input_requests.from_client_response(question("roots/list", None), Response())


INVALID: dict[str, tuple[str, bytes]] = {
    "no action": ("elicitation/create", b"{}"),
    "another action": ("elicitation/create", b'{"action":"maybe"}'),
    "nested content": ("elicitation/create", b'{"action":"accept","content":{"a":{}}}'),
    "no object": ("elicitation/create", b"7"),
    "no UTF-8": ("elicitation/create", b'{"action":"\xff"}'),
    "no model": ("sampling/createMessage", b'{"role":"assistant","content":{"type":"text","text":"x"}}'),
    "no roots": ("roots/list", b'{"roots":7}'),
}


@pytest.mark.parametrize(("method", "answer"), INVALID.values(), ids=INVALID)
def test_an_answer_that_is_none_reaches_no_server_of_either_era(method: str, answer: bytes) -> None:
    with pytest.raises(InvalidInputResponseError, match=method):
        input_requests.from_client_response(question(method, {}), Response(result=Raw(answer)))
    asked: dict[Id, InputRequest] = {1: question(method, {})}
    (key,) = keys(asked)
    with pytest.raises(InvalidInputResponseError, match=method):
        input_requests.input_responses(asked, {"inputResponses": jsonrpc.raw({key: Raw(answer)})})


def test_an_answers_error_does_not_repeat_what_a_person_typed() -> None:
    answer = jsonrpc.raw({"action": "accept", "content": {"password": {"typed": "hunter2"}}})
    with pytest.raises(InvalidInputResponseError) as caught:
        input_requests.from_client_response(question("elicitation/create", FORM), Response(result=answer))
    assert "hunter2" not in str(caught.value)


# -- a modern client, a legacy server


@each_question
@pytest.mark.parametrize("request_id", [3, "3", "é-1"])
def test_a_modern_client_is_asked_what_a_legacy_server_requests_and_the_server_gets_its_answer(
    method: str, params: Any, answer: Any, request_id: Id
) -> None:
    key_of_the_gateway, now = [b"k" * 32], 1000.0
    call = {"name": Raw(b'"x__y"'), "arguments": Raw(b"{}")}
    binding = request_state.bind("acme/alice", "tools/call", call)
    legacy = {**(params or {}), "_meta": {"progressToken": 1}, "task": {"ttl": 1}}
    asked = {request_id: input_requests.from_server_request(method, raws(legacy))}
    state = request_state.seal(key_of_the_gateway, binding, "call-1", now + 60)

    result = json.loads(bytes(input_requests.input_required(asked, state, Raw(b'{"name":"callscope","version":"1"}'))))
    validate_server_result("tools/call", "2026-07-28", result)
    assert result["resultType"] == "input_required"
    ((key, shown),) = result["inputRequests"].items()
    assert shown == ({"method": method} if params is None else {"method": method, "params": params})

    retry = {**call, "inputResponses": jsonrpc.raw({key: answer, "unasked": 1})}
    again = request_state.bind("acme/alice", "tools/call", retry)
    content = request_state.unseal(key_of_the_gateway, again, result["requestState"], now)
    assert content == Raw(b'"call-1"')
    ((answered, given),) = input_requests.input_responses(asked, retry).items()
    assert (answered, json.loads(bytes(given))) == (request_id, answer)


def test_what_the_client_left_out_can_be_asked_again() -> None:
    asked: dict[Id, InputRequest] = {1: question("elicitation/create", FORM), "1": question("roots/list", None)}
    _, second = keys(asked)
    assert input_requests.input_responses(asked, {}) == {}
    given = input_requests.input_responses(asked, {"inputResponses": jsonrpc.raw({second: ROOTS})})
    assert list(given) == ["1"]


def test_two_requests_whose_ids_look_alike_have_two_keys() -> None:
    asked: dict[Id, InputRequest] = {1: question("roots/list", None), "1": question("roots/list", None)}
    assert len(keys(asked)) == 2


@pytest.mark.parametrize("value", [b"[]", b"7", b"null", b'"\xff"'])
def test_input_responses_that_are_no_object_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidInputResponseError, match="inputResponses"):
        input_requests.input_responses({}, {"inputResponses": Raw(value)})


def test_members_that_nobody_knows_keep_their_bytes() -> None:
    params = {"message": Raw(b'"m"'), "x": Raw(b"[ 1.0 ]")}
    asked: dict[Id, InputRequest] = {1: input_requests.from_server_request("elicitation/create", params)}
    assert b"[ 1.0 ]" in bytes(input_requests.input_required(asked, "s"))
    assert b"[ 1.0 ]" in input_requests.to_client_request(1, asked[1])


@pytest.mark.parametrize("method", ["tools/call", "ping", "", "x" * 1000])
def test_what_no_server_may_ask_reaches_no_client(method: str) -> None:
    with pytest.raises(InvalidInputRequestError) as caught:
        input_requests.from_server_request(method, {})
    assert len(str(caught.value)) < 200


# -- what clients declared


@pytest.mark.parametrize(
    ("questions", "can", "lacking"),
    [
        pytest.param([("roots/list", None)], {"roots": {}}, {}, id="declared"),
        pytest.param([], {}, {}, id="nothing asked"),
        pytest.param(
            [("roots/list", None), ("sampling/createMessage", SAMPLE)],
            {},
            {"roots": {}, "sampling": {}},
            id="two kinds",
        ),
        pytest.param(
            [("elicitation/create", FORM), ("elicitation/create", PAGE)],
            {},
            {"elicitation": {"form": {}, "url": {}}},
            id="two modes",
        ),
    ],
)
def test_a_client_is_asked_only_for_what_it_declared(
    questions: list[tuple[str, Any]], can: Any, lacking: dict[str, Any]
) -> None:
    declared = capabilities.read_client(jsonrpc.raw(can))
    assert input_requests.missing_capabilities([question(*one) for one in questions], declared) == lacking
