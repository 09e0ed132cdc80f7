"""Progress tokens and the notifications that carry them."""

import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.mcp import jsonrpc, progress


@pytest.mark.parametrize(
    "written",
    [b"7", b'"7"', b"-1", b"1.0", b"123456789012345678901234567890", b'""', rb'"\u00fc"'],
    ids=["integer", "string", "negative", "float", "large", "empty", "escape"],
)
def test_a_token_keeps_its_type_and_its_bytes(written: bytes) -> None:
    found = progress.token({"progressToken": Raw(written)})
    assert found is not None
    sent = progress.notification({"progressToken": jsonrpc.raw("gateway"), "progress": jsonrpc.raw(1)}, found)
    assert json.loads(sent)["params"]["progressToken"] == json.loads(written)
    assert written in sent


@pytest.mark.parametrize("written", [b"null", b"true", b"[]", b"{}", b'"\xff"', b""])
def test_what_is_no_token_asks_for_no_progress(written: bytes) -> None:
    assert progress.token({"progressToken": Raw(written)}) is None
    assert progress.token({}) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"1", b"1", True),
        (b"1", b"1.0", True),
        (b'"a"', rb'"\u0061"', True),
        (b"1", b'"1"', False),
        (b"1", b"2", False),
        (b"9007199254740993", b"9007199254740992", False),
    ],
)
def test_progress_tokens_are_compared_by_value_and_type(one: bytes, other: bytes, same: bool) -> None:  # noqa: FBT001 - a table's column
    keys = (progress.key(Raw(one)), progress.key(Raw(other)))
    assert None not in keys
    assert (keys[0] == keys[1]) is same


def test_everything_but_the_token_goes_on_as_it_came() -> None:
    params = {"progressToken": Raw(b"1"), "progress": Raw(b"1.0e1"), "x": Raw(b"[ ]"), "message": Raw(b'"m"')}
    sent = progress.notification(params, Raw(b'"c"'))
    assert b'"progress":1.0e1' in sent
    assert b"[ ]" in sent
    assert json.loads(sent) == {
        "jsonrpc": "2.0",
        "method": "notifications/progress",
        "params": {"progressToken": "c", "progress": 10.0, "x": [], "message": "m"},
    }


def told(*values: Any) -> list[Any]:
    """Which of an upstream's steps a client hears of."""
    steps = progress.IncreasingProgress()
    return [value for value in values if steps.advance({"progress": jsonrpc.raw(value)})]


def test_a_client_hears_only_of_more_than_before() -> None:
    assert told(0, 0.5, 0.5, 0.4, 1, 1.0, 2) == [0, 0.5, 1, 2]
    assert told(-3, -5, -2.5) == [-3, -2.5]


def test_what_says_no_progress_is_not_told() -> None:
    assert told("1", None, {}, 1) == [1]
    assert not progress.IncreasingProgress().advance({})
