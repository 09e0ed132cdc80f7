"""Results between the eras: rows "Result" and "List" of the translation table."""

import json
from typing import Any

import pytest
from mcp_types.methods import CACHEABLE_METHODS, validate_server_result
from msgspec import Raw

from gateway.mcp import era_bridge, jsonrpc
from gateway.mcp.era_bridge import InvalidResultError, ResultType
from gateway.mcp.revisions import Era

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
GATEWAY = {"name": "callscope", "version": "1"}
FRESHNESS = {"ttlMs": 0, "cacheScope": "private"}
TEXT = [{"type": "text", "text": "hi"}]
TOOL = {"name": "add", "inputSchema": {"type": "object"}}


def for_modern(method: str, value: Any, server_info: Any = None) -> Any:
    """What a modern client gets of a legacy upstream's result."""
    info = jsonrpc.raw(server_info) if server_info is not None else None
    return json.loads(bytes(era_bridge.result(method, Era.MODERN, Era.LEGACY, jsonrpc.raw(value), info)))


def for_legacy(method: str, value: Any) -> Any:
    """What a legacy client gets of a modern upstream's result."""
    return json.loads(bytes(era_bridge.result(method, Era.LEGACY, Era.MODERN, jsonrpc.raw(value))))


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize("written", [b'{ "content":[] , "x":1.0}', b"[]", b"no json"])
def test_between_peers_of_one_era_a_result_is_the_very_same_object(era: Era, written: bytes) -> None:
    value = Raw(written)
    assert era_bridge.result("tools/call", era, era, value, Raw(b'{"name":"callscope"}')) is value
    assert era_bridge.tool(era, era, value) is value


LEGACY_RESULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tools/call": ("tools/call", {"content": TEXT, "structuredContent": {"a": 1}, "isError": True}),
    "tools/list": ("tools/list", {"tools": [TOOL], "nextCursor": ""}),
    "prompts/list": ("prompts/list", {"prompts": [{"name": "p"}]}),
    "prompts/get": ("prompts/get", {"messages": [{"role": "user", "content": TEXT[0]}]}),
    "resources/list": ("resources/list", {"resources": [{"name": "r", "uri": "test://r"}]}),
    "resources/templates/list": ("resources/templates/list", {"resourceTemplates": []}),
    "resources/read": ("resources/read", {"contents": [{"uri": "test://r", "text": "x"}]}),
    "completion/complete": ("completion/complete", {"completion": {"values": ["x"]}}),
}


@pytest.mark.parametrize(("method", "value"), LEGACY_RESULTS.values(), ids=[f"Result {key}" for key in LEGACY_RESULTS])
def test_a_legacy_upstreams_result_becomes_a_valid_modern_one_and_returns_as_it_was(
    method: str, value: dict[str, Any]
) -> None:
    caching = FRESHNESS if method in CACHEABLE_METHODS else {}
    modern = for_modern(method, value)
    assert modern == {"resultType": "complete", **caching, **value}
    validate_server_result(method, "2026-07-28", modern)
    assert for_legacy(method, modern) == value


@pytest.mark.parametrize(
    ("sent", "meta"),
    [
        pytest.param({}, {SERVER_INFO: GATEWAY}, id="no _meta"),
        pytest.param({"_meta": {"vendor/key": [1]}}, {"vendor/key": [1], SERVER_INFO: GATEWAY}, id="beside others"),
        pytest.param({"_meta": {SERVER_INFO: {"name": "x"}}}, {SERVER_INFO: GATEWAY}, id="in place of another"),
        pytest.param({"_meta": None}, {SERVER_INFO: GATEWAY}, id="null _meta"),
    ],
)
def test_a_modern_client_is_told_of_the_gateway(sent: dict[str, Any], meta: dict[str, Any]) -> None:
    assert for_modern("tools/call", {"content": [], **sent}, GATEWAY)["_meta"] == meta


def test_without_a_server_info_the_meta_of_a_result_stays_as_it_is() -> None:
    value = Raw(b'{"_meta":{ "a" : 1.0 }}')
    assert bytes(era_bridge.result("prompts/get", Era.MODERN, Era.LEGACY, value)) == (
        b'{"resultType":"complete","_meta":{ "a" : 1.0 }}'
    )


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"resultType": "task"}, id="another resultType"),
        pytest.param({"resultType": "complete"}, id="the same resultType"),
        pytest.param({"resultType": None}, id="null resultType"),
    ],
)
def test_what_a_legacy_upstream_calls_result_type_is_none(value: dict[str, Any]) -> None:
    assert for_modern("tools/call", value) == {"resultType": "complete"}


def test_a_legacy_upstreams_word_on_caching_counts_for_nothing() -> None:
    value = {"tools": [], "ttlMs": -1, "cacheScope": "public"}
    assert for_modern("tools/list", value) == {"resultType": "complete", "tools": [], **FRESHNESS}


@pytest.mark.parametrize("client", Era)
def test_members_that_nobody_knows_keep_their_bytes(client: Era) -> None:
    unknown = b'{ "b" : 1.0,"a":[ ] ,"e":1e3,"n":123456789012345678901234567890}'
    value = Raw(b'{"x":' + unknown + b',"content":[ {"type" : "new"} ],"_meta":{"y":' + unknown + b"}}")
    upstream = Era.LEGACY if client is Era.MODERN else Era.MODERN
    translated = bytes(era_bridge.result("tools/call", client, upstream, value, Raw(b"{}")))
    assert translated.count(unknown) == 2
    assert b'[ {"type" : "new"} ]' in translated


@pytest.mark.parametrize(
    ("meta", "kept"),
    [
        pytest.param({SERVER_INFO: GATEWAY}, {}, id="Result only serverInfo"),
        pytest.param({SERVER_INFO: GATEWAY, "a": 1}, {"_meta": {"a": 1}}, id="Result serverInfo and more"),
        pytest.param({"a": 1}, {"_meta": {"a": 1}}, id="Result no serverInfo"),
    ],
)
def test_a_legacy_client_is_not_told_of_a_modern_server(meta: dict[str, Any], kept: dict[str, Any]) -> None:
    assert for_legacy("tools/call", {"resultType": "complete", "content": [], "_meta": meta}) == {"content": [], **kept}


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        pytest.param({"structuredContent": {"a": 1}}, {"structuredContent": {"a": 1}}, id="object"),
        pytest.param({"structuredContent": [1]}, {}, id="array"),
        pytest.param({"structuredContent": "x"}, {}, id="string"),
        pytest.param({"structuredContent": None}, {}, id="null"),
    ],
)
def test_result_a_legacy_client_gets_structured_content_only_if_it_is_an_object(
    sent: dict[str, Any], got: dict[str, Any]
) -> None:
    assert for_legacy("tools/call", {"content": TEXT, **sent}) == {"content": TEXT, **got}


@pytest.mark.parametrize("sent", [{"content": []}, {}])
def test_structured_content_that_goes_stays_readable_if_there_is_no_other_content(sent: dict[str, Any]) -> None:
    assert for_legacy("tools/call", {**sent, "structuredContent": [1, "x"]}) == {
        "content": [{"type": "text", "text": '[1,"x"]'}]
    }


def test_a_structure_of_null_says_nothing_that_would_have_to_stay_readable() -> None:
    assert for_legacy("tools/call", {"content": [], "structuredContent": None}) == {"content": []}


TOOLS: dict[str, tuple[Era, dict[str, Any], dict[str, Any]]] = {
    "List no execution for a modern client": (Era.MODERN, {"execution": {"taskSupport": "optional"}}, {}),
    "List any outputSchema for a modern client": (
        Era.MODERN,
        {"outputSchema": {"type": "array"}},
        {"outputSchema": {"type": "array"}},
    ),
    "Result outputSchema of an object": (
        Era.LEGACY,
        {"outputSchema": {"type": "object", "$defs": {}}},
        {"outputSchema": {"type": "object", "$defs": {}}},
    ),
    "Result outputSchema of an array": (Era.LEGACY, {"outputSchema": {"type": "array"}}, {}),
    "Result outputSchema of several": (Era.LEGACY, {"outputSchema": {"type": ["object", "null"]}}, {}),
    "Result outputSchema without type": (Era.LEGACY, {"outputSchema": {"anyOf": []}}, {}),
    "Result outputSchema that is none": (Era.LEGACY, {"outputSchema": True}, {}),
    "Result no outputSchema": (Era.LEGACY, {"x-vendor": 1}, {"x-vendor": 1}),
}


@pytest.mark.parametrize(("client", "sent", "got"), TOOLS.values(), ids=TOOLS)
def test_a_tool_has_what_the_clients_era_knows(client: Era, sent: dict[str, Any], got: dict[str, Any]) -> None:
    upstream = Era.LEGACY if client is Era.MODERN else Era.MODERN
    listing = jsonrpc.raw({**TOOL, **sent})
    translated = era_bridge.tool(client, upstream, listing)
    assert json.loads(bytes(translated)) == {**TOOL, **got}
    assert (translated is listing) == (sent == got)
    page = jsonrpc.raw({"tools": [TOOL, {**TOOL, **sent}]})
    listed = json.loads(bytes(era_bridge.result("tools/list", client, upstream, page)))
    assert listed["tools"] == [TOOL, {**TOOL, **got}]


@pytest.mark.parametrize(
    ("method", "value", "kind"),
    [
        pytest.param("tools/call", {}, ResultType.COMPLETE, id="1.3 absent is complete"),
        pytest.param("tools/list", {"resultType": "complete"}, ResultType.COMPLETE, id="complete"),
        pytest.param("tools/call", {"resultType": "input_required"}, ResultType.INPUT_REQUIRED, id="tools/call"),
        pytest.param("prompts/get", {"resultType": "input_required"}, ResultType.INPUT_REQUIRED, id="prompts/get"),
        pytest.param("resources/read", {"resultType": "input_required"}, ResultType.INPUT_REQUIRED, id="read"),
    ],
)
def test_a_result_is_complete_or_asks_for_input(method: str, value: dict[str, Any], kind: ResultType) -> None:
    assert era_bridge.result_type(method, jsonrpc.raw(value)) is kind


@pytest.mark.parametrize(
    ("method", "written", "told"),
    [
        pytest.param("tools/call", b'{"resultType":"task"}', "'task'", id="1.3 unrecognised resultType"),
        pytest.param("tools/call", b'{"resultType":7}', "resultType", id="1.3 resultType that is no text"),
        pytest.param("tools/call", b'{"resultType":"\xff"}', "resultType", id="no UTF-8"),
        pytest.param("tools/list", b'{"resultType":"input_required"}', "tools/list", id="not on tools/list"),
        pytest.param("tools/call", b'{"resultType":"input_required"}', "input", id="a client that was not asked"),
        pytest.param("tools/call", b"[]", "no object", id="no object"),
        pytest.param("tools/list", b'{"tools":{}}', "'tools'", id="no list of tools"),
        pytest.param("tools/list", b'{"tools":[7]}', "tool", id="no tool"),
    ],
)
def test_a_modern_upstreams_result_that_is_none_is_refused(method: str, written: bytes, told: str) -> None:
    with pytest.raises(InvalidResultError, match=told):
        era_bridge.result(method, Era.LEGACY, Era.MODERN, Raw(written))


@pytest.mark.parametrize("written", [b"[]", b"null", b'"x"', b"{"])
def test_a_legacy_upstreams_result_that_is_no_object_is_refused(written: bytes) -> None:
    with pytest.raises(InvalidResultError, match="no object"):
        era_bridge.result("tools/call", Era.MODERN, Era.LEGACY, Raw(written))
