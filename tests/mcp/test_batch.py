"""Batches of revision 2025-03-26 (1.2 "Batching")."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mcp import batch as batches
from gateway.mcp import jsonrpc
from gateway.mcp.inbound import Rejection

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
NOTE = b'{ "jsonrpc":"2.0", "method":"notifications/initialized" }'
ANSWER = b'{"jsonrpc":"2.0","id":"s1","result":{}}'


@pytest.mark.parametrize(
    ("body", "batch"),
    [(b"[]", True), (b" \r\n\t[1]", True), (PING, False), (b' {"a":[]}', False), (b"", False), (b'"["', False)],
)
def test_a_body_is_a_batch_if_it_is_an_array(body: bytes, batch: bool) -> None:  # noqa: FBT001 - a table's column
    assert batches.is_batch(body) is batch


@pytest.mark.parametrize("version", [None, "2025-03-26"], ids=["1.2 assumed revision", "1.2 named revision"])
def test_the_messages_keep_their_order_and_their_bytes(version: str | None) -> None:
    assert batches.split(b" [%b ,\n%b,%b]" % (PING, NOTE, ANSWER), version) == [PING, NOTE, ANSWER]


def test_json_rpc_6_a_member_that_is_no_message_does_not_cost_the_others_their_answers() -> None:
    assert batches.split(b'[1,%b,[],"initialize",{"method":7}]' % PING, None) == [
        b"1",
        PING,
        b"[]",
        b'"initialize"',
        b'{"method":7}',
    ]


@pytest.mark.parametrize(
    ("body", "version", "code", "told"),
    [
        pytest.param(b"[]", None, -32600, "empty", id="JSON-RPC 6 empty array"),
        pytest.param(b"[%b]" % PING, "2024-11-05", -32600, "one message", id="1.2 an older revision"),
        pytest.param(b"[%b]" % PING, "2025-06-18", -32600, "one message", id="1.2 removed in 2025-06-18"),
        pytest.param(b"[%b]" % PING, "2025-11-25", -32600, "one message", id="1.2 removed, latest legacy"),
        pytest.param(b"[%b]" % PING, "2026-07-28", -32600, "one message", id="modern"),
        pytest.param(b'[%b,{"id":2,"method":"initialize"}]' % PING, None, -32600, "initialize", id="1.2 initialize"),
        pytest.param(
            rb'[{"id":2,"method":"\u0069nitialize"}]', None, -32600, "initialize", id="1.2 escaped initialize"
        ),
        pytest.param(b"[%b" % PING, None, -32700, "JSON", id="JSON-RPC 6 no JSON"),
        pytest.param(b'["\xff"]', None, -32700, "JSON", id="JSON-RPC 6 no UTF-8"),
        pytest.param(PING, None, -32600, "no batch", id="no array"),
        pytest.param(b"[" * 100_000, None, -32700, "JSON", id="nested too deeply"),
        pytest.param(b"[%b]" % b",".join([b"{}"] * 257), None, -32600, "256", id="too many"),
    ],
)
def test_a_batch_that_may_not_be_is_refused_as_a_whole(body: bytes, version: str | None, code: int, told: str) -> None:
    refused = batches.split(body, version)
    assert isinstance(refused, Rejection)
    assert (refused.status, refused.id, refused.code) == (400, None, code)
    assert told in refused.message


def test_the_answers_are_one_array_and_what_gets_none_has_no_place_in_it() -> None:
    first, second = jsonrpc.result(1, jsonrpc.EMPTY_OBJECT), jsonrpc.error(None, jsonrpc.error_object(-32600, "no"))
    joined = batches.join([first, None, second])
    assert joined is not None
    assert json.loads(joined) == [json.loads(first), json.loads(second)]


@pytest.mark.parametrize("answers", [[], [None], [None, None]])
def test_1_2_notifications_and_responses_alone_get_no_body(answers: list[None]) -> None:
    assert batches.join(answers) is None


@given(st.lists(st.sampled_from([PING, NOTE, ANSWER, b"7", b"null"]), min_size=1, max_size=256))
def test_what_was_joined_is_split_into_the_same(messages: list[bytes]) -> None:
    joined = batches.join(messages)
    assert joined is not None
    assert batches.split(joined, None) == messages
