"""Capabilities of servers to clients and of clients to servers."""

import json
from typing import Any

import pytest
from msgspec import Raw

from gateway.mcp import capabilities, jsonrpc
from gateway.mcp.capabilities import InvalidInputRequestError

ALL_OF_A_CLIENT = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {"tools": {}, "context": {}},
    "roots": {"listChanged": True},
    "tasks": {"list": {}},
    "experimental": {"x": {}},
    "extensions": {"a/b": {}},
}


def declared(*servers: Any, notifies: bool = True, logging: bool = True) -> dict[str, Any]:
    found = (capabilities.read_server(jsonrpc.raw(one)) for one in servers)
    return capabilities.union(found, notifies=notifies, logging=logging)


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        pytest.param([], {"tools": {}}, id="union of none"),
        pytest.param([{"tools": {}}], {"tools": {}}, id="union tools"),
        pytest.param([{"prompts": {}}], {"tools": {}, "prompts": {}}, id="union prompts"),
        pytest.param(
            [{"tools": {"listChanged": True}}, {"tools": {}, "completions": {}}],
            {"tools": {"listChanged": True}, "completions": {}},
            id="union of two",
        ),
        pytest.param(
            [{"resources": {"subscribe": True}}, {"resources": {"listChanged": True}}, {"logging": {}}],
            {"tools": {}, "resources": {"subscribe": True, "listChanged": True}, "logging": {}},
            id="union of members",
        ),
        pytest.param(
            [{"tools": {"listChanged": False}, "tasks": {"list": {}}, "experimental": {"x": {}}, "extensions": {}}],
            {"tools": {}},
            id="1.2 no tasks, no experiments",
        ),
        pytest.param([{"prompts": True}, [], None, "x"], {"tools": {}}, id="union what is none"),
    ],
)
def test_what_one_server_offers_the_gateway_offers(servers: list[Any], found: dict[str, Any]) -> None:
    assert declared(*servers) == found


def test_changes_and_logging_are_declared_only_where_the_client_can_get_them() -> None:
    offers = {
        "tools": {"listChanged": True},
        "prompts": {"listChanged": True},
        "resources": {"listChanged": True, "subscribe": True},
        "completions": {},
        "logging": {},
    }
    assert declared(offers) == offers
    assert declared(offers, notifies=False) == {name: {} for name in offers}
    assert declared(offers, logging=False) == {name: offers[name] for name in offers if name != "logging"}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        pytest.param(
            ALL_OF_A_CLIENT,
            {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}, "context": {}}, "roots": {}},
            id="Elicit everything",
        ),
        pytest.param({"elicitation": {}}, {"elicitation": {}}, id="Elicit no mode"),
        pytest.param({"sampling": {}}, {"sampling": {}}, id="Elicit sampling"),
        pytest.param({}, {}, id="Elicit nothing"),
        pytest.param(None, {}, id="Elicit unsaid"),
        pytest.param({"sampling": 7}, {}, id="Elicit what is none"),
    ],
)
def test_an_upstream_of_another_era_is_told_only_what_the_gateway_carries(said: Any, told: Any) -> None:
    raw = jsonrpc.raw(said) if said is not None else None
    assert json.loads(bytes(capabilities.for_upstream(raw))) == told


@pytest.mark.parametrize(
    ("method", "params", "can", "needed"),
    [
        pytest.param("elicitation/create", {}, {"elicitation": {}}, None, id="form by default"),
        pytest.param("elicitation/create", {"mode": "form"}, {"elicitation": {"form": {}}}, None, id="form"),
        pytest.param("elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}, None, id="url"),
        pytest.param("elicitation/create", {}, {}, {"elicitation": {"form": {}}}, id="no elicitation"),
        pytest.param(
            "elicitation/create", {}, {"elicitation": {"url": {}}}, {"elicitation": {"form": {}}}, id="only url"
        ),
        pytest.param(
            "elicitation/create", {"mode": "url"}, {"elicitation": {}}, {"elicitation": {"url": {}}}, id="no url"
        ),
        pytest.param("sampling/createMessage", {}, {"sampling": {}}, None, id="sampling"),
        pytest.param("sampling/createMessage", {}, {"roots": {}}, {"sampling": {}}, id="no sampling"),
        pytest.param(
            "sampling/createMessage",
            {"tools": []},
            {"sampling": {}},
            {"sampling": {"tools": {}}},
            id="no sampling with tools",
        ),
        pytest.param(
            "sampling/createMessage", {"toolChoice": {}}, {"sampling": {"tools": {}}}, None, id="sampling tools"
        ),
        pytest.param("roots/list", None, {"roots": {}}, None, id="roots"),
        pytest.param("roots/list", {}, {}, {"roots": {}}, id="no roots"),
    ],
)
def test_a_question_needs_what_the_client_must_have_declared(
    method: str, params: Any, can: Any, needed: dict[str, Any] | None
) -> None:
    raw = jsonrpc.raw(params) if params is not None else None
    assert capabilities.missing_capability(method, raw, capabilities.read_client(jsonrpc.raw(can))) == needed


@pytest.mark.parametrize(
    ("method", "params"),
    [("tools/call", b"{}"), ("elicitation/create", b'{"mode":"voice"}'), ("roots/list", b"7"), ("", b"{}")],
)
def test_what_no_server_may_ask_is_not_passed_on(method: str, params: bytes) -> None:
    can = capabilities.read_client(jsonrpc.raw(ALL_OF_A_CLIENT))
    with pytest.raises(InvalidInputRequestError):
        capabilities.missing_capability(method, Raw(params), can)
