"""JSON-RPC envelopes: what is routed by is decoded, everything else stays as it came."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from gateway.mcp import jsonrpc
from gateway.mcp.revisions import Era

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ids = st.integers(-(2**53), 2**53) | st.text()
spaces = st.text(" \t\r\n", max_size=3)


@given(values, ids, st.sampled_from([None, 2]), spaces)
def test_a_results_bytes_pass_through_both_ways(value: Any, request_id: int | str, indent: int, space: str) -> None:
    written = (space + json.dumps(value, indent=indent) + space).encode()
    message = jsonrpc.decode_message(b'{"id":%b,"result":%b,"x":[1]}' % (json.dumps(request_id).encode(), written))
    assert message.result is not UNSET
    assert bytes(message.result) == written.strip(b" \t\r\n")
    assert message.id == request_id
    sent = jsonrpc.result(request_id, message.result)
    assert bytes(message.result) in sent
    assert json.loads(sent) == {"jsonrpc": "2.0", "id": request_id, "result": value}


def test_a_request_is_routed_by_its_method_and_its_params_stay_undecoded() -> None:
    message = jsonrpc.decode_message(
        b'{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"x","arguments":{ "a":1.0 }},"more":1}'
    )
    assert (message.jsonrpc, message.id, message.method) == ("2.0", "a", "tools/call")
    assert message.params is not UNSET
    assert {key: bytes(value) for key, value in message.params.items()} == {
        "name": b'"x"',
        "arguments": b'{ "a":1.0 }',
    }
    assert message.result is UNSET
    assert message.error is UNSET


def test_an_absent_id_is_not_a_null_one() -> None:
    assert jsonrpc.decode_message(b"{}").id is UNSET
    assert jsonrpc.decode_message(b'{"id":null}').id is None


@pytest.mark.parametrize(
    "text",
    [b"[]", b"7", b'{"id":1.5}', b'{"id":{}}', b'{"id":true}', b'{"method":7}', b'{"params":[1]}', b'{"params":7}'],
)
def test_what_is_json_but_no_message_is_invalid(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        jsonrpc.decode_message(text)


@pytest.mark.parametrize("text", [b"", b"{", b"{} {}", b'{"result":tru}', b'{"result":"\n"}'])
def test_what_is_no_json_is_not_decoded_even_where_it_stays_raw(text: bytes) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        jsonrpc.decode_message(text)
    assert not isinstance(caught.value, msgspec.ValidationError)


def test_the_envelopes_of_all_kinds_are_json_rpc() -> None:
    assert json.loads(jsonrpc.request(7, "ping", {"a": Raw(b"1"), "b": "2"})) == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "ping",
        "params": {"a": 1, "b": "2"},
    }
    assert json.loads(jsonrpc.notification("n")) == {"jsonrpc": "2.0", "method": "n"}
    assert json.loads(jsonrpc.notification("n", {"a": Raw(b"1")})) == {
        "jsonrpc": "2.0",
        "method": "n",
        "params": {"a": 1},
    }
    failed = jsonrpc.error(None, jsonrpc.error_object(-32600, "no", {"a": 1}))
    assert json.loads(failed) == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32600, "message": "no", "data": {"a": 1}},
    }
    assert json.loads(bytes(jsonrpc.error_object(1, "no"))) == {"code": 1, "message": "no"}


def test_an_errors_further_members_stay_in_its_bytes() -> None:
    written = b'{"code":-32602 ,"message":"no","data":{"x":1},"vendor":2}'
    message = jsonrpc.decode_message(b'{"jsonrpc":"2.0","id":1,"error":%b}' % written)
    assert message.error is not UNSET
    assert jsonrpc.error(1, message.error) == b'{"jsonrpc":"2.0","id":1,"error":%b}' % written
    error = jsonrpc.decode_error(message.error)
    assert (error.code, error.message) == (-32602, "no")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (jsonrpc.PARSE_ERROR, 400),
        (jsonrpc.INVALID_REQUEST, 400),
        (jsonrpc.METHOD_NOT_FOUND, 404),
        (jsonrpc.INVALID_PARAMS, 400),
        (jsonrpc.INTERNAL_ERROR, 200),
        (-32020, 400),
        (-32022, 400),
        (1234, 200),
    ],
)
def test_an_errors_http_status_is_the_codes_in_the_modern_era_and_200_in_the_legacy_one(code: int, status: int) -> None:
    assert jsonrpc.http_status(Era.MODERN, code) == status
    assert jsonrpc.http_status(Era.LEGACY, code) == 200
