"""Bad input: a clear answer for each, and what is a call is counted, what is none is counted as rejected."""

import time
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.system.clients import Outcome, call, post, request
from tests.system.gateway_process import Gateway, eventually
from tests.system.signal_counts import from_api, from_metrics

JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
MODERN = {**request("tools/call", {"name": "modern__echo"})["headers"], **JSON}
UNKNOWN_METHOD = request("tools/dance")
NO_META = {**call("modern__echo"), "json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {}}}
BATCH = [call("modern__echo")["json"], call("modern__echo")["json"]]


@pytest.mark.parametrize(
    ("message", "status", "code", "says"),
    [
        pytest.param({"content": b'{"jsonrpc": ', "headers": MODERN}, 400, -32700, "no JSON", id="broken JSON"),
        pytest.param({"content": b"\xff\xfe", "headers": MODERN}, 400, -32700, "no JSON", id="no UTF-8"),
        pytest.param({"content": b"", "headers": MODERN}, 400, -32700, "no JSON", id="nothing at all"),
        pytest.param({"json": BATCH, "headers": MODERN}, 400, -32600, "batch", id="batch"),
        pytest.param({"json": {"hello": "world"}, "headers": MODERN}, 400, -32600, "JSON-RPC", id="no JSON-RPC"),
        pytest.param(UNKNOWN_METHOD, 404, -32601, "tools/dance", id="unknown method"),
        pytest.param(NO_META, 400, -32602, "protocolVersion", id="no _meta"),
        pytest.param(
            {**call("modern__echo"), "headers": {**MODERN, "Mcp-Name": "modern__hang"}},
            *(400, -32020, "mcp-name"),
            id="a header that lies",
        ),
        pytest.param(
            {"content": b"x" * (5 * 2**20), "headers": MODERN}, 413, 413, "at most 4194304 bytes", id="5 MiB body"
        ),
        pytest.param({"content": b"a=b", "headers": {"Content-Type": "text/plain"}}, 415, 415, "JSON", id="a form"),
    ],
)
def test_a_message_that_is_none_is_refused_with_the_reason(
    gateway: Gateway, message: dict[str, Any], status: int, code: int, says: str
) -> None:
    response = post(gateway, message, "bob")

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert says.lower() in response.json()["error"]["message"].lower()


@pytest.mark.parametrize(
    ("path", "authorization", "status", "says"),
    [
        pytest.param("/ws/engineering", None, 401, "no token", id="no token"),
        pytest.param("/ws/engineering", "Bearer mwt_wrong", 401, "not known", id="wrong token"),
        pytest.param("/ws/engineering", "Basic YTpi", 401, "no token", id="another scheme"),
        pytest.param("/ws/engineering", "gone", 401, "expired", id="expired token"),
        pytest.param("/ws/elsewhere", "bob", 403, "elsewhere", id="another workspace"),
        pytest.param("/ws/nowhere", "bob", 404, "no such workspace", id="unknown workspace"),
        pytest.param("/mcp", "bob", 404, "/ws/<workspace>", id="unknown path"),
    ],
)
def test_whoever_may_not_call_is_told_why(
    gateway: Gateway, path: str, authorization: str | None, status: int, says: str
) -> None:
    message = call("modern__echo")
    value = f"Bearer {gateway.secrets[authorization]}" if authorization in gateway.secrets else authorization
    headers = {**message["headers"], **({"Authorization": value} if value else {})}

    response = httpx.post(f"{gateway.relay}{path}", json=message["json"], headers=headers)

    assert response.status_code == status
    assert says in response.json()["error"]["message"]
    assert ("www-authenticate" in response.headers) == (status == 401)


@pytest.mark.parametrize(
    ("tool", "recorded", "error_type"),
    [
        ("modern__nope", ("modern", "_unknown"), "unknown_tool"),
        ("nowhere__echo", ("_unknown", "_unknown"), "unknown_tool"),
        ("echo", ("_unknown", "_unknown"), "unknown_tool"),
        ("dead__echo", ("dead", "_unknown"), "upstream_unreachable"),
        ("hasty__hang", ("hasty", "hang"), "upstream_timeout"),
        ("broken__http_error", ("broken", "http_error"), "upstream_http_error"),
        ("broken__garbage", ("broken", "garbage"), "upstream_protocol_error"),
        ("broken__cut", ("broken", "cut"), "upstream_protocol_error"),
    ],
)
def test_a_call_that_cannot_succeed_fails_with_a_name_and_is_counted_once(
    gateway: Gateway, tool: str, recorded: tuple[str, str], error_type: str
) -> None:
    outcome = Outcome("bob", *recorded, "error", error_type)
    before = from_api(gateway)[outcome]

    error = post(gateway, call(tool), "bob").json()["error"]

    assert error["data"]["error_type"] == error_type
    assert recorded[0].removeprefix("_unknown") in error["message"]
    assert eventually(lambda: from_api(gateway)[outcome] == before + 1)
    assert eventually(lambda: from_metrics(gateway)[outcome] == before + 1)


def test_whoever_calls_too_often_is_told_when_to_come_back_and_the_call_is_counted(gateway: Gateway) -> None:
    assert post(gateway, call("modern__echo"), "hurried").status_code == 200

    response = post(gateway, call("modern__echo"), "hurried")

    assert response.status_code == 429
    assert response.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
    assert 3500 < int(response.headers["retry-after"]) <= 3601
    assert (response.headers["x-ratelimit-limit"], response.headers["x-ratelimit-remaining"]) == ("1", "0")
    assert abs(int(response.headers["x-ratelimit-reset"]) - time.time() - 3600) < 100
    limited = Outcome("hurried", "modern", "echo", "error", "rate_limited")
    assert eventually(lambda: from_api(gateway)[limited] == 1)


def test_after_all_of_that_the_gateway_serves_as_before(gateway: Gateway) -> None:
    response = post(gateway, call("modern__echo"), "bob")

    assert response.status_code == 200
    assert response.json()["result"]["isError"] is False
    assert httpx.get(f"{gateway.relay}/healthz").status_code == 200
    assert httpx.get(f"{gateway.observer}/readyz").json() == {"ready": True, "problems": []}


def test_what_was_turned_away_before_it_was_a_call_is_counted_by_reason(gateway: Gateway) -> None:
    before = _rejected(gateway)

    httpx.post(gateway.url, json={})
    post(gateway, {"content": b"{", "headers": MODERN}, "bob")
    post(gateway, {"content": b"x" * (5 * 2**20), "headers": MODERN}, "bob")

    for reason in ("unauthorized", "bad_request", "too_large"):
        assert eventually(lambda: _rejected(gateway).get(reason, 0) == before.get(reason, 0) + 1), reason  # noqa: B023 - called at once


def _rejected(gateway: Gateway) -> dict[str, float]:
    return {
        sample.labels["reason"]: sample.value
        for family in text_string_to_metric_families(gateway.metrics())
        for sample in family.samples
        if sample.name == "mcp_gateway_requests_rejected_total"
    }
