"""A `tools/call` that fails: its client is told why, and one record says the same, without any secret."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import (
    SSE_END,
    SSE_HEAD,
    Behave,
    Do,
    answered,
    error,
    head,
    raw,
    whole,
)
from tests.http1.raw import (
    modern as modern_server,
)
from tests.relay.rig import SECRETS, assert_times_add_up, legacy, legacy_call, rig, tool_call

PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"
AMBIENT = f"00-{'c' * 32}-{'d' * 16}-00"


def tool_error(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": True}


@pytest.mark.parametrize(
    ("behave", "error_type", "status", "message", "shown"),
    [
        pytest.param(
            lambda r: [answered(r, tool_error("disk full"))],
            "tool_error",
            200,
            "disk full",
            "disk full",
            id="tool error",
        ),
        pytest.param(
            lambda r: [answered(r, {"isError": True})],
            "tool_error",
            200,
            "without a message",
            "isError",
            id="one that is mute",
        ),
        pytest.param(
            lambda r: [answered(r, {"isError": True, "content": "odd"})],
            "tool_error",
            200,
            "without a message",
            "odd",
            id="odd",
        ),
        pytest.param(
            lambda r: [whole(b'{"id":%d,"result":{"isError":true,"content":[{"text":"\xff"}]}}' % r.message["id"])],
            *("upstream_protocol_error", 200, "not JSON-RPC", "isError"),
            id="one that is no UTF-8",
        ),
        pytest.param(
            lambda r: [whole(json.dumps(error(r, -32602, "no path")).encode())],
            *("jsonrpc_error", 200, "no path", "-32602"),
            id="JSON-RPC error",
        ),
        pytest.param(
            lambda r: [whole(b'{"id":%d,"error":{"code":1,"message":"\xff"}}' % r.message["id"])],
            *("upstream_protocol_error", 200, "not JSON-RPC", "code"),
            id="one that is no UTF-8 either",
        ),
        pytest.param(
            lambda r: [whole(b'{"id":%d,"error":"oops"}' % r.message["id"])],
            *("upstream_protocol_error", 200, "not a JSON-RPC error object", "oops"),
            id="an error that is none",
        ),
        pytest.param(
            lambda r: [answered(r, 5)], "upstream_protocol_error", 200, "not an object", "5", id="a result that is none"
        ),
        pytest.param(
            lambda r: [answered(r, {"isError": "yes"})],
            "upstream_protocol_error",
            200,
            "not an object",
            "yes",
            id="nearly none",
        ),
        pytest.param(
            lambda _: [whole(b"<h1>Bad Gateway</h1>", 502)],
            *("upstream_http_error", 502, "answered HTTP 502", "<h1>Bad Gateway</h1>"),
            id="HTTP error",
        ),
        pytest.param(
            lambda _: [whole(b"half a mess")],
            "upstream_protocol_error",
            200,
            "not JSON-RPC",
            "half a mess",
            id="garbage",
        ),
        pytest.param(
            lambda _: [head(200, "content-length: 9") + b"half", Do.CLOSE],
            *("upstream_protocol_error", None, "in the middle of its answer", None),
            id="cut",
        ),
        pytest.param(
            lambda _: [SSE_HEAD, SSE_END], "upstream_protocol_error", 200, "without a response", None, id="empty stream"
        ),
        pytest.param(lambda _: [Do.CLOSE], "upstream_unreachable", None, "before it answered", None, id="closed"),
        pytest.param(lambda _: [Do.HOLD], "upstream_timeout", None, "within 0.2 s", None, id="silence"),
        pytest.param(
            lambda _: [head(200, "content-length: 9") + b"half", Do.HOLD],
            *("upstream_timeout", None, "within 0.2 s", None),
            id="silence in the middle",
        ),
    ],
)
@pytest.mark.parametrize("call", [tool_call, legacy_call], ids=["modern", "legacy"])
async def test_a_failed_call_is_recorded_once_and_its_client_gets_the_reason(
    tmp_path: Path, behave: Behave, error_type: str, status: int | None, message: str, shown: str | None, call: Any
) -> None:
    timeout = 0.2 if error_type == "upstream_timeout" else 30
    async with (
        raw(modern_server(behave)) as server,
        rig(tmp_path, {"files": {"url": server.url, "timeout": timeout}}) as relay,
    ):
        response = await relay.post(call())

        answer = response.json()
        assert len(server.calls) == 1
        refused = error_type == "jsonrpc_error" and call is tool_call
        assert (response.status_code, answer["id"]) == (400 if refused else 200, 1)
        if error_type == "tool_error":
            assert answer["result"]["isError"] is True
        elif error_type == "jsonrpc_error":
            assert answer["error"] == {"code": -32602, "message": "no path"}
        else:
            assert answer["error"]["code"] == -32603
            assert answer["error"]["data"] == {"error_type": error_type, "server": "files"}
            assert message in answer["error"]["message"]
            assert "'files'" in answer["error"]["message"]
    end = relay.end
    assert [start.call_id for start in relay.starts] == [end.call_id]
    assert (end.status, end.error_type, end.http_status) == ("error", error_type, status)
    assert message in (end.error_message or "")
    assert (shown in (end.upstream_response or "")) if shown else end.upstream_response is None
    assert end.response_bytes == len(response.content)
    assert_times_add_up(end)


async def test_a_call_to_a_server_that_was_never_up_is_upstream_unreachable(tmp_path: Path) -> None:
    async with raw(modern_server()) as gone:
        pass
    async with rig(tmp_path, {"files": gone}) as relay:
        answer = (await relay.post(tool_call())).json()

        assert answer["error"]["data"] == {"error_type": "upstream_unreachable", "server": "files"}
        assert f"127.0.0.1:{gone.port}" in answer["error"]["message"]
    assert relay.starts == []
    assert (relay.end.error_type, relay.end.server_slug, relay.end.tool_name) == (
        "upstream_unreachable",
        "files",
        "_unknown",
    )
    assert_times_add_up(relay.end)
    assert relay.end.duration_ms > 0


@pytest.mark.parametrize(
    ("params", "server_slug", "named"),
    [
        pytest.param({"name": "files__nope"}, "files", "files__nope", id="no such tool"),
        pytest.param({"name": "files__"}, "_unknown", "files__", id="no tool"),
        pytest.param({"name": "nowhere__act"}, "_unknown", "nowhere__act", id="no such server"),
        pytest.param({"name": "off__act"}, "_unknown", "off__act", id="a server that is disabled"),
        pytest.param({"name": "act"}, "_unknown", '"act"', id="no server"),
        pytest.param({"name": "__act"}, "_unknown", "__act", id="an empty server"),
        pytest.param({"name": ""}, "_unknown", '""', id="nothing"),
        pytest.param({"name": 5}, "_unknown", "5", id="a number"),
        pytest.param({"name": None}, "_unknown", "null", id="null"),
        pytest.param({"name": ["files__act"]}, "_unknown", "files__act", id="a list"),
        pytest.param({}, "_unknown", "(none)", id="no name"),
        pytest.param({"name": "Files__act"}, "_unknown", "Files__act", id="capitals"),
    ],
)
async def test_an_unknown_tool_is_recorded_and_its_name_is_not_a_label(
    tmp_path: Path, params: dict[str, Any], server_slug: str, named: str
) -> None:
    off = {"url": "http://127.0.0.1:1/", "enabled": False}
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server, "off": off}) as relay:
        response = await relay.post(legacy("tools/call", params))

        error = response.json()["error"]
        assert (response.status_code, error["code"], error["data"]["error_type"]) == (200, -32602, "unknown_tool")
        assert named in error["message"]
        assert server.calls == []
    end = relay.end
    assert relay.starts == []
    assert (end.server_slug, end.tool_name, end.error_type) == (server_slug, "_unknown", "unknown_tool")
    assert_times_add_up(end)


async def test_a_rate_limited_call_is_429_and_recorded(tmp_path: Path) -> None:
    async with (
        raw(modern_server()) as server,
        rig(tmp_path, {"files": server}, workspace={"rate_limit": "2/hour"}) as relay,
    ):
        responses = [await relay.post(tool_call()) for _ in range(3)]
        listing = await relay.post(legacy("tools/list"))
        other = await relay.post(tool_call(), token="bot")

        assert [response.status_code for response in (*responses, listing, other)] == [200, 200, 429, 429, 200]
        refused = responses[2]
        assert refused.json()["error"]["code"] == "RATE_LIMIT_EXCEEDED"
        assert 0 < int(refused.headers["retry-after"]) <= 3601
        assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"]) == ("2", "0")
        assert len(server.calls) == 3
    limited = [end for end in relay.ends if end.error_type == "rate_limited"]
    assert [(end.server_slug, end.tool_name, end.duration_ms) for end in limited] == [("files", "act", 0.0)]
    assert len(relay.ends) == 4
    assert len(relay.starts) == 3
    assert relay.rejected == {"rate_limited": 1}


# -- what is never recorded


LEAKS = f"""Authorization: Bearer its-own-secret-key, key its-own-secret-key, {SECRETS["alice"]},
{{"api_key": "hunter2 and more", "nested": "{{\\"password\\": \\"correct horse\\"}}"}} internal-4711"""


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda r: [answered(r, tool_error(LEAKS))], id="tool error"),
        pytest.param(lambda r: [whole(json.dumps(error(r, -32000, LEAKS)).encode())], id="JSON-RPC error"),
        pytest.param(lambda _: [whole(LEAKS.encode(), 500)], id="HTTP error"),
        pytest.param(lambda _: [whole(LEAKS.encode())], id="garbage"),
    ],
)
async def test_secrets_in_an_upstreams_response_are_not_in_the_journal(tmp_path: Path, behave: Behave) -> None:
    async with raw(modern_server(behave)) as server:
        files = {"url": server.url, "headers": {"Authorization": "Bearer its-own-secret-key"}}
        async with rig(tmp_path, {"files": files}, redaction={"patterns": [r"internal-\d+"]}) as relay:
            await relay.post(tool_call(arguments={"mine": "an argument"}))
    assert relay.end.status == "error"
    journal = b"".join(path.read_bytes() for path in tmp_path.rglob("*.jsonl"))
    for secret in ("its-own-secret-key", SECRETS["alice"], "hunter2", "and more", "correct", "horse", "internal-4711"):
        assert secret.encode() not in journal, secret
    assert b"an argument" not in journal


async def test_a_long_response_is_truncated_in_the_record_only(tmp_path: Path) -> None:
    text = "é" * 1_000_000
    async with (
        raw(modern_server(lambda r: [answered(r, tool_error(text))])) as server,
        rig(tmp_path, {"files": server}) as relay,
    ):
        answer = (await relay.post(tool_call())).json()

        assert answer["result"]["content"][0]["text"] == text
    for kept in (relay.end.error_message, relay.end.upstream_response):
        assert kept is not None
        assert 4000 < len(kept.encode()) <= 4096
        assert kept.endswith("… [cut]")


async def test_is_error_null_is_a_success(tmp_path: Path) -> None:
    """Serializers that write what is not there: the client can read it, so it gets it."""
    async with (
        raw(modern_server(lambda r: [answered(r, {"content": [], "isError": None})])) as server,
        rig(tmp_path, {"files": server}) as relay,
    ):
        assert (await relay.post(tool_call())).json()["result"] == {"content": [], "isError": None}
    assert relay.end.status == "success"
