"""The `requestState` that the gateway mints."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from gateway.mcp import jsonrpc, request_state
from gateway.mcp.request_state import Binding, InvalidRequestStateError

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NOW = 1_750_000_000.0
CALL = {"name": Raw(b'"files__read"'), "arguments": Raw(b'{"a":1,"b":[1.0]}')}
BINDING = request_state.bind("acme/alice", "tools/call", CALL)


def sealed(content: Any = None, binding: Binding = BINDING) -> str:
    return request_state.seal([KEY], binding, content, NOW + 60)


def bound(**changes: Any) -> Binding:
    params = {**CALL, **{name: jsonrpc.raw(value) for name, value in changes.items()}}
    return request_state.bind("acme/alice", "tools/call", params)


@given(st.dictionaries(st.text(), st.integers(-(2**53), 2**53) | st.text()))
def test_what_was_sealed_comes_back(content: dict[str, Any]) -> None:
    state = sealed(content)
    assert state.isascii()
    assert json.loads(bytes(request_state.unseal([KEY], BINDING, state, NOW))) == content


@pytest.mark.parametrize(
    "retry",
    [
        pytest.param(bound(), id="the same"),
        pytest.param(bound(inputResponses={"a": 1}, requestState="x", _meta={"p": 1}), id="answers and state"),
        pytest.param(bound(arguments={"b": [1.0], "a": 1}), id="another order"),
        pytest.param(
            request_state.bind(
                "acme/alice", "tools/call", {**CALL, "arguments": Raw(rb'{ "\u0061" : 1, "b" : [ 1.0 ] }')}
            ),
            id="written differently",
        ),
    ],
)
def test_a_retry_that_says_the_same_is_the_same_request(retry: Binding) -> None:
    assert bytes(request_state.unseal([KEY], retry, sealed("x"), NOW)) == b'"x"'


@pytest.mark.parametrize(
    ("binding", "now", "told"),
    [
        pytest.param(BINDING._replace(principal="acme/bob"), NOW, "principal", id="another principal"),
        pytest.param(BINDING._replace(method="prompts/get"), NOW, "another request", id="another method"),
        pytest.param(bound(name="files__write"), NOW, "another request", id="another tool"),
        pytest.param(bound(arguments={"a": 2}), NOW, "another request", id="other arguments"),
        pytest.param(bound(more=1), NOW, "another request", id="more params"),
        pytest.param(BINDING, NOW + 60, "expired", id="expired"),
    ],
)
def test_a_state_is_good_for_its_principal_its_request_and_its_time(binding: Binding, now: float, told: str) -> None:
    with pytest.raises(InvalidRequestStateError, match=told):
        request_state.unseal([KEY], binding, sealed(), now)


def test_a_state_is_good_until_it_lapses() -> None:
    assert bytes(request_state.unseal([KEY], BINDING, sealed(1), NOW + 59.999)) == b"1"


@given(st.data())
def test_no_character_can_be_changed_left_out_or_added(data: st.DataObject) -> None:
    state = sealed({"call": "1"})
    at = data.draw(st.integers(0, len(state) - 1))
    other = data.draw(st.characters(codec="utf-8"))
    for tampered in (
        state[:at] + other + state[at + 1 :],
        state[:at] + state[at + 1 :],
        state[:at] + other + state[at:],
    ):
        if tampered != state:
            with pytest.raises(InvalidRequestStateError):
                request_state.unseal([KEY], BINDING, tampered, NOW)


def test_a_payload_of_the_clients_own_is_refused() -> None:
    payload = base64.urlsafe_b64encode(jsonrpc.encode([*BINDING, NOW + 10**6, {"call": "of another"}])).decode()
    mac = sealed().rpartition(".")[2]
    with pytest.raises(InvalidRequestStateError, match="changed"):
        request_state.unseal([KEY], BINDING, f"cs1.{payload}.{mac}", NOW)


@pytest.mark.parametrize("state", ["", "x", "cs1.", "cs1..", "cs1.a", "AEAD-protected blob", "é", "cs1.é.é"])
def test_a_state_of_someone_else_is_refused_and_told_apart(state: str) -> None:
    with pytest.raises(InvalidRequestStateError):
        request_state.unseal([KEY], BINDING, state, NOW)
    assert request_state.is_sealed(state) == state.startswith("cs1.")
    assert request_state.is_sealed(sealed())


def test_a_state_of_any_length_costs_little() -> None:
    with pytest.raises(InvalidRequestStateError, match="not issued by this gateway"):
        request_state.unseal([KEY], BINDING, "cs1." + "a" * 65_536 + ".b", NOW)


def test_a_new_key_signs_while_the_old_one_is_still_good() -> None:
    state = sealed("old")
    assert bytes(request_state.unseal([OTHER_KEY, KEY], BINDING, state, NOW)) == b'"old"'
    new = request_state.seal([OTHER_KEY, KEY], BINDING, "new", NOW + 60)
    assert bytes(request_state.unseal([OTHER_KEY], BINDING, new, NOW)) == b'"new"'
    with pytest.raises(InvalidRequestStateError, match="key"):
        request_state.unseal([KEY], BINDING, new, NOW)


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b""]])
def test_a_key_that_could_be_guessed_is_a_mistake_of_the_gateways(keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        request_state.seal(keys, BINDING, None, NOW)
    with pytest.raises(ValueError, match="32 bytes"):
        request_state.unseal(keys, BINDING, sealed(), NOW)


def test_params_that_cannot_be_decoded_have_no_binding() -> None:
    with pytest.raises(InvalidRequestStateError, match="params"):
        request_state.bind("p", "tools/call", {"arguments": Raw(rb'"\ud800"')})
