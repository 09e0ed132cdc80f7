"""Errors between the eras: row "Errors" of the translation table."""

import json
from typing import Any

import pytest
from msgspec import UNSET, Raw

from gateway.mcp import era_bridge, jsonrpc
from gateway.mcp.era_bridge import InvalidResultError
from gateway.mcp.revisions import Era

MODERN, LEGACY = Era.MODERN, Era.LEGACY
DATA = {"uri": "test://r", "more": [1.0]}


def translated(method: str, client: Era, upstream: Era, value: dict[str, Any]) -> tuple[str, Any]:
    """Which member the client's response has, and its value."""
    response = era_bridge.error(method, client, upstream, jsonrpc.raw(value))
    assert (response.result is UNSET) != (response.error is UNSET)
    if response.error is UNSET:
        assert response.result is not UNSET
        return "result", json.loads(bytes(response.result))
    return "error", json.loads(bytes(response.error))


KEPT: dict[str, tuple[Era, Era, int]] = {
    "-32602": (MODERN, LEGACY, -32602),
    "-32601": (MODERN, LEGACY, -32601),
    "own code": (MODERN, LEGACY, 7),
    "own code to legacy": (LEGACY, MODERN, 7),
    "-32002 between legacy peers": (LEGACY, LEGACY, -32002),
    "-32042 between legacy peers": (LEGACY, LEGACY, -32042),
    "-32020 between legacy peers": (LEGACY, LEGACY, -32020),
    "-32021 between modern peers": (MODERN, MODERN, -32021),
    "-32602 between modern peers": (MODERN, MODERN, -32602),
}


@pytest.mark.parametrize(("client", "upstream", "code"), KEPT.values(), ids=KEPT)
def test_an_error_that_both_eras_know_is_the_very_same_object(client: Era, upstream: Era, code: int) -> None:
    value = Raw(b'{ "code":%d , "message":"m", "x":1.0 }' % code)
    assert era_bridge.error("tools/call", client, upstream, value).error is value


RECODED: dict[str, tuple[str, Era, Era, int, int]] = {
    "-32002 of a legacy upstream": ("resources/read", MODERN, LEGACY, -32002, -32602),
    "-32002 of a modern upstream": ("resources/read", MODERN, MODERN, -32002, -32602),
    "-32042 of no tool": ("prompts/get", MODERN, LEGACY, -32042, -32602),
}


@pytest.mark.parametrize(("method", "client", "upstream", "code", "got"), RECODED.values(), ids=RECODED)
def test_a_retired_code_becomes_the_one_of_today_and_everything_else_stays(
    method: str, client: Era, upstream: Era, code: int, got: int
) -> None:
    value = {"code": code, "message": "not there", "data": DATA, "vendor": 1}
    assert translated(method, client, upstream, value) == ("error", {**value, "code": got})


GATEWAYS_FAULT: dict[str, tuple[str, Era, Era, int]] = {
    "-32020 to a legacy client": ("tools/call", LEGACY, MODERN, -32020),
    "-32022 to a legacy client": ("tools/call", LEGACY, MODERN, -32022),
    "-32020 to a modern client": ("tools/call", MODERN, MODERN, -32020),
    "-32022 to a modern client": ("tools/call", MODERN, MODERN, -32022),
    "-32020 that a legacy upstream made up": ("tools/call", MODERN, LEGACY, -32020),
    "-32021 that a legacy upstream made up": ("tools/call", MODERN, LEGACY, -32021),
    "-32022 that a legacy upstream made up": ("tools/call", MODERN, LEGACY, -32022),
    "-32021 of no tool": ("prompts/get", LEGACY, MODERN, -32021),
}


@pytest.mark.parametrize(("method", "client", "upstream", "code"), GATEWAYS_FAULT.values(), ids=GATEWAYS_FAULT)
def test_what_the_client_cannot_mend_is_an_internal_error_that_says_what_the_server_said(
    method: str, client: Era, upstream: Era, code: int
) -> None:
    value = {"code": code, "message": "header does not match", "data": DATA}
    member, got = translated(method, client, upstream, value)
    assert (member, got["code"], got["data"]) == ("error", -32603, {"upstream": value})
    assert str(code) in got["message"]
    assert "header does not match" in got["message"]


def test_errors_a_legacy_client_reads_which_capability_a_tool_misses() -> None:
    value = {"code": -32021, "message": "needs sampling", "data": {"requiredCapabilities": {"sampling": {}}}}
    member, got = translated("tools/call", LEGACY, MODERN, value)
    assert (member, got["isError"], "resultType" in got) == ("result", True, False)
    assert got["content"] == [
        {"type": "text", "text": 'needs sampling (needed client capabilities: {"sampling":{}})'},
    ]


def test_errors_a_modern_client_reads_which_page_a_legacy_tool_wants_opened() -> None:
    pages = [{"mode": "url", "elicitationId": "1", "url": "https://x.example/login", "message": "Log in"}]
    value = {"code": -32042, "message": "authorize first", "data": {"elicitations": pages}}
    member, got = translated("tools/call", MODERN, LEGACY, value)
    assert (member, got["isError"], got["resultType"]) == ("result", True, "complete")
    assert got["content"] == [{"type": "text", "text": "authorize first\nLog in: https://x.example/login"}]


@pytest.mark.parametrize("data", [None, 7, {"elicitations": 7}, {"elicitations": [{"url": 7}]}])
def test_a_data_that_says_no_page_leaves_the_message(data: Any) -> None:
    member, got = translated("tools/call", MODERN, LEGACY, {"code": -32042, "message": "authorize", "data": data})
    assert (member, got["content"][0]["text"]) == ("result", "authorize")


@pytest.mark.parametrize("data", [None, 7, {"requiredCapabilities": 7}, {}])
def test_a_data_that_names_no_capability_leaves_the_message(data: Any) -> None:
    member, got = translated("tools/call", LEGACY, MODERN, {"code": -32021, "message": "cannot", "data": data})
    assert member == "result"
    assert got["content"][0]["text"].startswith("cannot (")


@pytest.mark.parametrize("written", [b"[]", b"null", b"{}", b'{"code":"x"}', b'{"code":1,"message":7}', b"\xff"])
@pytest.mark.parametrize("client", Era)
def test_an_error_that_is_none_of_json_rpcs_is_refused(client: Era, written: bytes) -> None:
    with pytest.raises(InvalidResultError):
        era_bridge.error("tools/call", client, Era.LEGACY, Raw(written))
