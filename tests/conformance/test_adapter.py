"""The adapter's names: a prefix on the way in, none on the way out, and nothing else touched."""

import json
from typing import Any

import pytest

from tests.conformance.adapter import Names

NAMES = Names("everything__")


@pytest.mark.parametrize(
    ("method", "params", "passed_on"),
    [
        (
            "tools/call",
            {"name": "echo", "arguments": {"name": 1}},
            {"name": "everything__echo", "arguments": {"name": 1}},
        ),
        ("prompts/get", {"name": "greet"}, {"name": "everything__greet"}),
        ("resources/read", {"uri": "test://a", "name": "x"}, {"uri": "test://a", "name": "x"}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "greet"}, "argument": {"name": "who", "value": ""}},
            {"ref": {"type": "ref/prompt", "name": "everything__greet"}, "argument": {"name": "who", "value": ""}},
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "test://{id}"}, "argument": {"name": "id", "value": ""}},
            {"ref": {"type": "ref/resource", "uri": "test://{id}"}, "argument": {"name": "id", "value": ""}},
        ),
        ("tools/call", {"arguments": {}}, {"arguments": {}}),
        ("tools/call", [1], [1]),
    ],
)
def test_a_request_names_what_the_gateway_offers(method: str, params: Any, passed_on: Any) -> None:
    body = {"method": method, "params": params}
    NAMES.request(method, body)
    assert body == {"method": method, "params": passed_on}


@pytest.mark.parametrize(
    ("value", "passed_on"),
    [
        (b"echo", b"everything__echo"),
        (b"echo  ", b"everything__echo  "),
        (b"=?base64?w6k=?=", b"=?base64?ZXZlcnl0aGluZ19fw6k=?="),
        (b"=?base64?!?=", b"=?base64?!?="),
    ],
)
def test_the_mirrored_name_goes_with_it_and_what_is_wrong_with_it_stays_wrong(value: bytes, passed_on: bytes) -> None:
    assert NAMES.header(value) == passed_on


def test_a_listing_shows_the_servers_own_names() -> None:
    listing = {"id": 1, "result": {"tools": [{"name": "everything__echo"}, {"name": "other__echo"}], "ttlMs": 0}}
    shown = json.loads(NAMES.listing("tools", json.dumps(listing).encode()))
    assert shown == {"id": 1, "result": {"tools": [{"name": "echo"}, {"name": "other__echo"}], "ttlMs": 0}}


@pytest.mark.parametrize(
    "message", [b'{"id":1,"error":{"code":-32601}}', b'{"id":1,"result":{"tools":[1]}}', b"<html>"]
)
def test_what_is_no_listing_passes_as_it_is(message: bytes) -> None:
    assert NAMES.listing("tools", message) == message


def test_an_event_stream_keeps_its_other_lines_and_its_line_ends() -> None:
    assert NAMES.event_line("tools", b"event: message\r\n") == b"event: message\r\n"
    line = NAMES.event_line("tools", b'data: {"result": {"tools": [{"name": "everything__echo"}]}}\r\n')
    assert line == b'data: {"result": {"tools": [{"name": "echo"}]}}\r\n'
