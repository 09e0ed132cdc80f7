"""`subscriptions/listen`."""

import json
from typing import Any

import pytest
from mcp_types.methods import parse_server_notification, validate_server_result
from msgspec import Raw

from gateway.mcp import jsonrpc, subscriptions
from gateway.mcp.jsonrpc import InvalidParamsError
from gateway.mcp.subscriptions import NOTHING, SubscriptionFilter

SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
TOOLS = "notifications/tools/list_changed"
PROMPTS = "notifications/prompts/list_changed"
RESOURCES = "notifications/resources/list_changed"
UPDATED = "notifications/resources/updated"

EVERYTHING = SubscriptionFilter(
    tools_list_changed=True,
    prompts_list_changed=True,
    resources_list_changed=True,
    resource_subscriptions=("test://a", "test://b"),
)


def frame(sent: bytes) -> dict[str, Any]:
    """A notification of the stream, valid by the official schema of the modern revision."""
    decoded: dict[str, Any] = json.loads(sent)
    parse_server_notification(decoded["method"], "2026-07-28", decoded.get("params"))
    return decoded


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        pytest.param({}, NOTHING, id="nothing"),
        pytest.param({"toolsListChanged": True}, SubscriptionFilter(tools_list_changed=True), id="tools"),
        pytest.param({"promptsListChanged": True}, SubscriptionFilter(prompts_list_changed=True), id="prompts"),
        pytest.param({"resourcesListChanged": True}, SubscriptionFilter(resources_list_changed=True), id="resources"),
        pytest.param({"resourceSubscriptions": ["a"]}, SubscriptionFilter(resource_subscriptions=("a",)), id="uris"),
        pytest.param({"toolsListChanged": None, "new": 1}, NOTHING, id="null and unknown"),
    ],
)
def test_a_client_says_what_it_listens_for(asked: dict[str, Any], found: SubscriptionFilter) -> None:
    assert subscriptions.read({"notifications": jsonrpc.raw(asked)}) == found


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="no object"),
        pytest.param({"toolsListChanged": "yes"}, id="no boolean"),
        pytest.param({"resourceSubscriptions": "test://a"}, id="no list"),
        pytest.param({"resourceSubscriptions": [1]}, id="no URI"),
        pytest.param({"resourceSubscriptions": ["a"] * 1001}, id="too many URIs"),
    ],
)
def test_a_filter_that_is_none_is_refused(asked: Any) -> None:
    with pytest.raises(InvalidParamsError):
        subscriptions.read({"notifications": jsonrpc.raw(asked)})


def test_a_request_without_a_filter_is_refused_but_an_upstreams_silence_is_no_promise() -> None:
    with pytest.raises(InvalidParamsError, match="missing"):
        subscriptions.read({})
    assert subscriptions.read_acknowledged({}).is_empty
    assert subscriptions.read_acknowledged(subscriptions.listen_params(EVERYTHING)) == EVERYTHING


@pytest.mark.parametrize(
    ("served", "kept"),
    [
        pytest.param({}, NOTHING, id="nothing"),
        pytest.param({"tools": True}, SubscriptionFilter(tools_list_changed=True), id="tools"),
        pytest.param({"prompts": True}, SubscriptionFilter(prompts_list_changed=True), id="prompts"),
        pytest.param({"resources": True}, SubscriptionFilter(resources_list_changed=True), id="resources"),
        pytest.param(
            {"subscribable": "test://b".__eq__},
            SubscriptionFilter(resource_subscriptions=("test://b",)),
            id="one URI of two",
        ),
    ],
)
def test_only_what_the_gateway_can_tell_is_acknowledged(served: dict[str, Any], kept: SubscriptionFilter) -> None:
    assert subscriptions.honored(EVERYTHING, **served) == kept
    assert subscriptions.honored(NOTHING, **served) == NOTHING


def test_what_was_not_asked_for_is_not_kept_to_and_no_falsehood_is_echoed() -> None:
    asked = SubscriptionFilter(tools_list_changed=False, prompts_list_changed=True, resource_subscriptions=("a", "a"))
    kept = subscriptions.honored(asked, tools=True, prompts=True, resources=True, subscribable=lambda _: True)
    assert json.loads(jsonrpc.encode(kept)) == {"promptsListChanged": True, "resourceSubscriptions": ["a"]}


@pytest.mark.parametrize("subscription", [1, "1", "listen-é"])
def test_the_first_frame_says_what_is_kept_to_and_has_the_requests_id_in_its_own_type(
    subscription: int | str,
) -> None:
    assert frame(subscriptions.acknowledged(subscription, SubscriptionFilter(tools_list_changed=True))) == {
        "jsonrpc": "2.0",
        "method": "notifications/subscriptions/acknowledged",
        "params": {"_meta": {SUBSCRIPTION: subscription}, "notifications": {"toolsListChanged": True}},
    }


@pytest.mark.parametrize(
    ("method", "uri", "wanted"),
    [
        (TOOLS, None, {"tools_list_changed": True}),
        (PROMPTS, None, {"prompts_list_changed": True}),
        (RESOURCES, None, {"resources_list_changed": True}),
        (UPDATED, "test://a", {"resource_subscriptions": ("test://a",)}),
    ],
    ids=["tools", "prompts", "resources", "updated"],
)
def test_a_listener_gets_the_kinds_that_it_asked_for_and_no_other(
    method: str, uri: str | None, wanted: dict[str, Any]
) -> None:
    assert EVERYTHING.wants(method, uri)
    assert SubscriptionFilter(**wanted).wants(method, uri)
    assert not NOTHING.wants(method, uri)
    others = {name: value for name, value in _members(EVERYTHING).items() if name not in wanted}
    assert not SubscriptionFilter(**others).wants(method, uri)


def _members(one: SubscriptionFilter) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__struct_fields__}


@pytest.mark.parametrize(
    ("method", "uri"), [(UPDATED, None), (UPDATED, "test://c"), ("notifications/message", None), ("", None)]
)
def test_what_is_no_change_that_was_named_is_not_for_the_stream(method: str, uri: str | None) -> None:
    assert not EVERYTHING.wants(method, uri)


def test_every_frame_names_its_subscription_and_keeps_everything_else() -> None:
    params = {"uri": Raw(b'"test://a"'), "x": Raw(b"[ 1.0 ]"), "_meta": Raw(b'{"y":{ }}')}
    sent = subscriptions.with_subscription_id("s", UPDATED, params)
    assert frame(sent)["params"] == {"uri": "test://a", "x": [1.0], "_meta": {"y": {}, SUBSCRIPTION: "s"}}
    assert b"[ 1.0 ]" in sent
    assert b"{ }" in sent
    assert frame(subscriptions.with_subscription_id(7, TOOLS, {}))["params"] == {"_meta": {SUBSCRIPTION: 7}}


def test_a_change_of_an_upstreams_stream_is_stamped_with_the_clients_id_and_not_the_gateways() -> None:
    upstream = frame(subscriptions.with_subscription_id("gateway", TOOLS, {}))
    params = {name: jsonrpc.raw(value) for name, value in upstream["params"].items()}
    assert frame(subscriptions.with_subscription_id(1, TOOLS, params))["params"]["_meta"] == {SUBSCRIPTION: 1}


@pytest.mark.parametrize(
    ("params", "got"),
    [
        pytest.param({"_meta": {SUBSCRIPTION: 1}}, None, id="Change events only the id"),
        pytest.param({"_meta": {SUBSCRIPTION: 1, "a": 2}}, {"_meta": {"a": 2}}, id="Change events more"),
        pytest.param({"_meta": {SUBSCRIPTION: 1}, "uri": "a"}, {"uri": "a"}, id="Change events uri"),
        pytest.param({"_meta": 7}, None, id="Change events no _meta"),
    ],
)
def test_a_legacy_client_hears_of_a_change_without_the_subscription(params: dict[str, Any], got: Any) -> None:
    raws = {name: jsonrpc.raw(value) for name, value in params.items()}
    assert json.loads(subscriptions.without_subscription_id(TOOLS, raws)).get("params") == got


@pytest.mark.parametrize(
    ("params", "uri"), [({"uri": "a"}, "a"), ({}, None), ({"uri": 7}, None)], ids=["uri", "none", "no text"]
)
def test_the_uri_of_an_update_is_read(params: dict[str, Any], uri: str | None) -> None:
    assert subscriptions.updated_uri({name: jsonrpc.raw(value) for name, value in params.items()}) == uri


def test_one_stream_upstream_carries_what_all_listeners_want() -> None:
    first = SubscriptionFilter(tools_list_changed=True, resource_subscriptions=("a", "b"))
    second = SubscriptionFilter(prompts_list_changed=True, resource_subscriptions=("b", "c"))
    assert subscriptions.union([first, second]) == SubscriptionFilter(
        tools_list_changed=True, prompts_list_changed=True, resource_subscriptions=("a", "b", "c")
    )
    assert subscriptions.union([]).is_empty


@pytest.mark.parametrize("subscription", [1, "1"])
def test_a_graceful_end_is_a_complete_result_that_names_the_subscription(subscription: int | str) -> None:
    info = {"name": "callscope", "version": "1"}
    result = json.loads(bytes(subscriptions.final_result(subscription, jsonrpc.raw(info))))
    assert result == {
        "resultType": "complete",
        "_meta": {SUBSCRIPTION: subscription, "io.modelcontextprotocol/serverInfo": info},
    }
    validate_server_result("subscriptions/listen", "2026-07-28", result)
    assert json.loads(bytes(subscriptions.final_result(1)))["_meta"] == {SUBSCRIPTION: 1}
