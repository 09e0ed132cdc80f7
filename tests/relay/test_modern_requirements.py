"""What the modern era requires of a server, seen from a client: messages, headers, errors, results and streams.

Source: specification 2026-07-28, basic/index, basic/transports/streamable-http, server/*.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import SSE_END, SSE_HEAD, TEXT, Request, Steps, answered, event, raw, result
from tests.http1.raw import legacy as legacy_server
from tests.http1.raw import modern as modern_server
from tests.relay.rig import PATH, Rig, bearer, legacy, modern, rig, tool_call

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT = "io.modelcontextprotocol/clientInfo"
LEVEL = "io.modelcontextprotocol/logLevel"
SERVER_INFO = "io.modelcontextprotocol/serverInfo"
LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list", "server/discover")
REMOVED = ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe")


def changed(message: Any, *, headers: Any = None, meta: Any = None, **members: Any) -> Any:
    """A message with other headers, `_meta` and members; what is `...` is left out."""
    own, body = message
    own = {name: value for name, value in {**own, **(headers or {})}.items() if value is not ...}
    params = {**body["params"], "_meta": {**body["params"]["_meta"], **(meta or {})}}
    params["_meta"] = {name: value for name, value in params["_meta"].items() if value is not ...}
    return own, {**body, "params": params, **members}


@pytest.mark.parametrize(
    ("message", "status", "code", "id_"),
    [
        pytest.param((tool_call()[0], [tool_call()[1]]), 400, -32600, None, id="a batch"),
        pytest.param((tool_call()[0], {"jsonrpc": "2.0", "id": 1, "result": {}}), 400, -32600, None, id="a response"),
        pytest.param(changed(tool_call(), id=None), 400, -32600, None, id="id null"),
        pytest.param((tool_call()[0], b"{"), 400, -32700, None, id="no JSON"),
        pytest.param(changed(tool_call(), meta={VERSION: ...}), 400, -32602, 1, id="no version in _meta"),
        pytest.param(changed(tool_call(), meta={CAPABILITIES: ...}), 400, -32602, 1, id="no capabilities"),
        pytest.param(changed(tool_call(), meta={VERSION: "2025-11-25"}), 400, -32020, 1, id="header and _meta at odds"),
        pytest.param(changed(tool_call(), headers={"mcp-method": ...}), 400, -32020, 1, id="no Mcp-Method"),
        pytest.param(changed(tool_call(), headers={"mcp-method": "TOOLS/CALL"}), 400, -32020, 1, id="the value's case"),
        pytest.param(changed(tool_call(), headers={"mcp-name": ...}), 400, -32020, 1, id="no Mcp-Name"),
        pytest.param(
            changed(modern("prompts/get", {"name": "files__p"}), headers={"mcp-name": "x"}),
            *(400, -32020, 1),
            id="a prompt's name at odds",
        ),
        pytest.param(
            changed(modern("resources/read", {"uri": "a://b"}), headers={"mcp-name": "a://c"}),
            *(400, -32020, 1),
            id="a URI at odds",
        ),
        pytest.param(changed(tool_call(), headers={"mcp-name": "=?base64?%%?="}), 400, -32020, 1, id="no base64 in it"),
        pytest.param(
            changed(tool_call(), headers={"mcp-protocol-version": "2099-01-01"}, meta={VERSION: "2099-01-01"}),
            *(400, -32022, 1),
            id="a version that is not served",
        ),
        *(pytest.param(modern(method), 404, -32601, 1, id=f"{method}") for method in REMOVED),
        pytest.param(modern("tasks/get"), 404, -32601, 1, id="an unknown method"),
        pytest.param(tool_call("files__nothing"), 400, -32602, 1, id="an unknown tool"),
        pytest.param(modern("tools/list", {"cursor": "x"}), 400, -32602, 1, id="a bad cursor"),
        pytest.param(
            changed(modern("resources/read", {"uri": "a://b"}), headers={"mcp-name": "a://b"}),
            *(400, -32602, 1),
            id="an unknown resource",
        ),
        pytest.param(changed(modern("tools/list"), meta={LEVEL: "loud"}), 400, -32602, 1, id="a bad log level"),
    ],
)
async def test_a_bad_request_has_the_code_and_status_of_the_specification_and_its_own_id(
    tmp_path: Path, message: Any, status: int, code: int, id_: Any
) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(message)

        answer = response.json()
        assert (response.status_code, answer["error"]["code"], answer["id"]) == (status, code, id_)
        assert response.headers["content-type"] == "application/json"
        assert server.calls == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_modern_client_has_post_only_and_no_session(tmp_path: Path, method: str) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        session = (await relay.post(legacy("initialize", {"protocolVersion": "2025-11-25"}))).headers["mcp-session-id"]
        own = {**bearer("alice"), "mcp-protocol-version": "2026-07-28", "mcp-session-id": session}
        response = await relay.http.request(method, PATH, headers={**own, "last-event-id": "5"})
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert "mcp-session-id" not in (await relay.post(tool_call(), mcp_session_id=session)).headers
    assert relay.end.session_id is None


async def test_a_notification_is_accepted_and_cancels_nothing(tmp_path: Path) -> None:
    headers, body = modern("notifications/cancelled", {"requestId": 1})
    del body["id"]
    async with rig(tmp_path) as relay:
        response = await relay.post((headers, body))
        assert (response.status_code, response.content) == (202, b"")


async def test_a_client_need_not_say_who_it_is(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        assert (await relay.post(changed(tool_call(), meta={CLIENT: ...}))).status_code == 200


async def test_discover_and_the_error_for_a_version_name_the_same_versions(tmp_path: Path) -> None:
    future = changed(tool_call(), headers={"mcp-protocol-version": "2099-01-01"}, meta={VERSION: "2099-01-01"})
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        discovered = (await relay.post(modern("server/discover"))).json()["result"]
        refused = (await relay.post(future)).json()["error"]["data"]
        assert refused == {"supported": discovered["supportedVersions"], "requested": "2099-01-01"}
        assert discovered["capabilities"]["tools"] == {}


async def test_a_missing_client_capability_is_400(tmp_path: Path) -> None:
    needs = {"code": -32021, "message": "no", "data": {"requiredCapabilities": {"sampling": {}}}}

    def behave(request: Request) -> Steps:
        body = json.dumps({"jsonrpc": "2.0", "id": request.message["id"], "error": needs}).encode()
        return [b"HTTP/1.1 400 x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)]

    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(tool_call())
        assert (response.status_code, response.json()["error"]) == (400, needs)


@pytest.mark.parametrize("era", [modern_server, legacy_server])
@pytest.mark.parametrize("method", LISTS)
async def test_every_result_has_its_type_and_says_how_long_it_may_be_cached(
    tmp_path: Path, era: Any, method: str
) -> None:
    async with raw(era()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(modern(method))
        found = response.json()["result"]
        assert (found["resultType"], found["ttlMs"], found["cacheScope"]) == ("complete", 0, "private")
        assert found["_meta"][SERVER_INFO]["name"] == "callscope"


async def test_every_client_gets_the_tools_in_the_same_order(tmp_path: Path) -> None:
    async with (
        raw(modern_server()) as one,
        raw(legacy_server()) as two,
        rig(tmp_path, {"b": one, "a": two}) as relay,
    ):
        seen = [
            [tool["name"] for tool in (await relay.post(modern("tools/list"), token=token)).json()["result"]["tools"]]
            for token in ("alice", "bot", "alice")
        ]
        assert seen[0] == seen[1] == seen[2]
        assert seen[0][0] == "b__act"


def streamed(request: Request) -> Steps:
    token = request.message["params"].get("_meta", {}).get("progressToken", 0)

    def progress(value: int) -> bytes:
        params = {"progressToken": token, "progress": value}
        return event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "error", "data": "x"}}
    return [SSE_HEAD, progress(1), progress(1), progress(2), event(log), event(result(request, TEXT)), SSE_END]


async def told(relay: Rig, message: Any) -> list[str]:
    response = await relay.post(message)
    if response.headers["content-type"] == "application/json":
        return []
    assert response.headers["x-accel-buffering"] == "no"
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    assert "result" in events[-1]
    return [one["method"].rpartition("/")[2] for one in events[:-1]]


async def test_a_stream_has_only_the_notifications_that_its_request_asked_for(tmp_path: Path) -> None:
    async with raw(legacy_server(streamed)) as server, rig(tmp_path, {"files": server}) as relay:
        assert await told(relay, tool_call()) == []
        assert await told(relay, tool_call(progressToken="t")) == ["progress", "progress"]
        assert await told(relay, tool_call(**{LEVEL: "warning"})) == ["message"]
        assert await told(relay, tool_call(**{LEVEL: "critical"})) == []


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/json, text/event-stream", 200),
        ("text/event-stream;q=0.5,application/json;q=0.9", 200),
        ("*/*", 200),
        ("application/*, text/*", 200),
        ("application/json", 200),
        ("", 200),
        ("text/event-stream", 406),
        ("text/html", 406),
        ("application/json;q=0, text/event-stream", 406),
        ("application/jsonp", 406),
    ],
)
async def test_a_client_that_does_not_accept_json_is_406(tmp_path: Path, accept: str, status: int) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(changed(tool_call(), headers={"accept": accept}))
        assert response.status_code == status
        assert len(server.calls) == (1 if status == 200 else 0)


async def test_a_client_that_accepts_no_event_stream_gets_the_response_alone(tmp_path: Path) -> None:
    async with raw(modern_server(streamed)) as server, rig(tmp_path, {"files": server}) as relay:
        message = changed(tool_call(progressToken="t"), headers={"accept": "application/json"})
        response = await relay.post(message)
        assert response.headers["content-type"] == "application/json"
        assert response.json()["result"] == TEXT


async def test_input_requests_and_responses_pass_unchanged_between_modern_peers(tmp_path: Path) -> None:
    asked = {"resultType": "input_required", "inputRequests": {"a": {"method": "roots/list"}}, "requestState": "s"}
    rounds = [asked, {**TEXT, "resultType": "complete"}]
    async with (
        raw(modern_server(lambda request: [answered(request, rounds.pop(0))])) as server,
        rig(tmp_path, {"files": server}) as relay,
    ):
        can: dict[str, Any] = {CAPABILITIES: {"roots": {}, "experimental": {"x": {}}}}
        assert (await relay.post(tool_call(**can))).json()["result"] == asked
        headers, body = tool_call(**can)
        body["params"] |= {"inputResponses": {"a": {"roots": []}}, "requestState": "s"}
        assert (await relay.post((headers, body))).json()["result"]["resultType"] == "complete"
        sent = server.calls[1].message["params"]
        assert (sent["inputResponses"], sent["requestState"]) == ({"a": {"roots": []}}, "s")
        assert sent["_meta"][CAPABILITIES] == can[CAPABILITIES]
    assert [call.status for call in relay.ends] == ["success", "success"]


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_a_page_of_another_origin_is_403(tmp_path: Path, method: str) -> None:
    async with rig(tmp_path) as relay:
        own = {**tool_call()[0], **bearer("alice"), "origin": "https://evil.example"}
        assert (await relay.http.request(method, PATH, headers=own)).status_code == 403


async def test_a_tools_schema_stays_as_it_is(tmp_path: Path) -> None:
    schema = {"type": "object", "$defs": {"a": {"$anchor": "x"}}, "allOf": [{"$ref": "#x"}], "$schema": "y"}
    tools = [{"name": "act", "inputSchema": schema}]
    async with raw(legacy_server(tools=tools)) as server, rig(tmp_path, {"files": server}) as relay:
        assert (await relay.post(modern("tools/list"))).json()["result"]["tools"][0]["inputSchema"] == schema


async def test_a_body_over_the_limit_is_413(tmp_path: Path) -> None:
    async with rig(tmp_path, requests={"max_bytes": 2048}) as relay:
        assert (await relay.post(tool_call(arguments={"x": "y" * 4096}))).status_code == 413


async def test_the_example_of_the_documentation_gets_its_result(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()
    headers = dict(re.findall(r"-H '([A-Za-z-]+): ([^']+)'", page))
    body = json.loads(re.findall(r"-d '([^']+)'", page)[0])
    expected = json.loads(re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0])
    async with raw(legacy_server()) as server, rig(tmp_path, {"files": server}) as relay:
        assert (await relay.post((headers, body))).json() == expected
        sent = server.calls[0].message["params"]
        assert (sent["name"], [key for key in sent["_meta"] if "modelcontextprotocol" in key]) == ("act", [])
