"""What a client may send: what is no message is refused with its code, in both eras, whatever its size."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import modern as modern_server
from tests.http1.raw import raw
from tests.relay.rig import JSON, MODERN_META, bearer, legacy, modern, rig, tool_call

CALL_HEADERS, CALL = tool_call()
NO_META: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "files__act"}}


def with_meta(**changes: Any) -> dict[str, Any]:
    meta = {key: value for key, value in {**MODERN_META, **changes}.items() if value is not ...}
    return {**CALL, "params": {**CALL["params"], "_meta": meta}}


VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


@pytest.mark.parametrize(
    ("headers", "body", "status", "code", "id_"),
    [
        pytest.param(CALL_HEADERS, b"", 400, -32700, None, id="nothing"),
        pytest.param(CALL_HEADERS, b"{", 400, -32700, None, id="half a message"),
        pytest.param(CALL_HEADERS, b"\xff\xfe{}", 400, -32700, None, id="no UTF-8"),
        pytest.param(CALL_HEADERS, b'{"jsonrpc":"2.0"} {}', 400, -32700, None, id="two messages"),
        pytest.param(CALL_HEADERS, b"\xef\xbb\xbf{}", 400, -32700, None, id="a byte-order mark"),
        pytest.param(CALL_HEADERS, b"[" * 1_000_000, 400, -32600, None, id="a million brackets"),
        pytest.param(CALL_HEADERS, b'{"x":' + b"[" * 1_000_000, 400, -32700, None, id="a million inside"),
        pytest.param(CALL_HEADERS, b'{"a":' * 500_000, 400, -32700, None, id="half a million braces"),
        pytest.param(CALL_HEADERS, [CALL, CALL], 400, -32600, None, id="a batch"),
        pytest.param(CALL_HEADERS, [], 400, -32600, None, id="an empty batch"),
        pytest.param(CALL_HEADERS, b"null", 400, -32600, None, id="null"),
        pytest.param(CALL_HEADERS, b'"x"', 400, -32600, None, id="a string"),
        pytest.param(CALL_HEADERS, {}, 400, -32600, None, id="an empty object"),
        pytest.param(CALL_HEADERS, {**CALL, "id": None}, 400, -32600, None, id="id null"),
        pytest.param(CALL_HEADERS, {**CALL, "id": 1.5}, 400, -32600, None, id="id 1.5"),
        pytest.param(CALL_HEADERS, {**CALL, "id": True}, 400, -32600, None, id="id true"),
        pytest.param(CALL_HEADERS, {**CALL, "id": {}}, 400, -32600, None, id="id an object"),
        pytest.param(CALL_HEADERS, {**CALL, "jsonrpc": "1.0"}, 400, -32600, 1, id="JSON-RPC 1.0"),
        pytest.param(CALL_HEADERS, {**CALL, "jsonrpc": 2.0}, 400, -32600, None, id="a number for jsonrpc"),
        pytest.param(CALL_HEADERS, {"id": 1, "method": "ping"}, 400, -32600, 1, id="no jsonrpc"),
        pytest.param(CALL_HEADERS, {"jsonrpc": "2.0", "id": 1}, 400, -32600, None, id="no method"),
        pytest.param(CALL_HEADERS, {**CALL, "method": 5}, 400, -32600, None, id="a number for method"),
        pytest.param(CALL_HEADERS, {**CALL, "params": []}, 400, -32600, None, id="params a list"),
        pytest.param(CALL_HEADERS, {"jsonrpc": "2.0", "id": 1, "result": {}}, 400, -32600, None, id="a response"),
        pytest.param(CALL_HEADERS, NO_META, 400, -32602, 1, id="no _meta"),
        pytest.param(CALL_HEADERS, {**NO_META, "params": {"_meta": []}}, 400, -32602, 1, id="_meta a list"),
        pytest.param(CALL_HEADERS, {**NO_META, "params": {"_meta": None}}, 400, -32602, 1, id="_meta null"),
        pytest.param(CALL_HEADERS, with_meta(**{VERSION: ...}), 400, -32602, 1, id="no version in _meta"),
        pytest.param(CALL_HEADERS, with_meta(**{CAPABILITIES: ...}), 400, -32602, 1, id="no capabilities in _meta"),
        pytest.param(CALL_HEADERS, with_meta(**{VERSION: 5}), 400, -32020, 1, id="a number for the version"),
        pytest.param(CALL_HEADERS, with_meta(**{VERSION: "2025-11-25"}), 400, -32020, 1, id="another version in _meta"),
        pytest.param({**CALL_HEADERS, "mcp-method": "tools/list"}, CALL, 400, -32020, 1, id="another method"),
        pytest.param({**CALL_HEADERS, "mcp-method": "Tools/Call"}, CALL, 400, -32020, 1, id="the method in capitals"),
        pytest.param({**CALL_HEADERS, "mcp-name": "files__read"}, CALL, 400, -32020, 1, id="another name"),
        pytest.param({**CALL_HEADERS, "mcp-name": "=?base64?!?="}, CALL, 400, -32020, 1, id="a name that is no base64"),
        pytest.param({**JSON, "mcp-protocol-version": "2026-07-28"}, CALL, 400, -32020, 1, id="no mirrored headers"),
        pytest.param(
            {**CALL_HEADERS, "mcp-protocol-version": "2099-01-01"},
            *(with_meta(**{VERSION: "2099-01-01"}), 400, -32022, 1),
            id="a version of the future",
        ),
    ],
)
async def test_an_invalid_message_is_rejected_counted_and_not_recorded(
    tmp_path: Path, headers: dict[str, str], body: Any, status: int, code: int, id_: Any
) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post((headers, body))

        answer = response.json()
        assert (response.status_code, answer["error"]["code"], answer["id"]) == (status, code, id_)
        assert answer["jsonrpc"] == "2.0"
        if code == -32022:
            assert answer["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01"}
        assert server.calls == []
    assert relay.recorded == []
    assert relay.rejected == {"bad_request": 1}


@pytest.mark.parametrize("name", ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-param-city"])
async def test_a_repeated_routing_header_is_rejected(tmp_path: Path, name: str) -> None:
    headers, body = tool_call()
    async with rig(tmp_path) as relay:
        twice = [
            *{**headers, name: headers.get(name, "Oslo"), **bearer("alice")}.items(),
            (name, headers.get(name, "Rome")),
        ]
        response = await relay.http.post("/ws/team", content=json.dumps(body), headers=twice)

        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize(
    ("written", "header"), [(r"files__\u0061ct", r"files__\u0061ct"), ("files__act", r"files__\u0061ct")]
)
async def test_a_routing_header_is_compared_with_the_decoded_body(tmp_path: Path, written: str, header: str) -> None:
    """A proxy that allows or denies by `Mcp-Name` would be told another name than the one that is served."""
    headers, body = tool_call()
    content = json.dumps(body).encode().replace(b"files__act", written.encode())
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(({**headers, "mcp-name": header}, content))

        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)
        assert server.calls == []


@pytest.mark.parametrize("written", [r"files__\u0061ct", "files__act"])
@pytest.mark.parametrize("header", ["files__act", "=?base64?ZmlsZXNfX2FjdA==?="])
async def test_equal_spellings_of_a_name_are_the_same_tool(tmp_path: Path, written: str, header: str) -> None:
    headers, body = tool_call()
    content = json.dumps(body).encode().replace(b"files__act", written.encode())
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        assert (await relay.post(({**headers, "mcp-name": header}, content))).status_code == 200
    assert relay.end.tool_name == "act"


@pytest.mark.parametrize("era", [modern, legacy])
@pytest.mark.parametrize("method", ["notifications/initialized", "notifications/cancelled", "whatever"])
async def test_a_notification_is_accepted_and_nothing_is_recorded(tmp_path: Path, era: Any, method: str) -> None:
    headers, body = era(method, {"requestId": 1})
    body.pop("id")
    async with rig(tmp_path) as relay:
        response = await relay.post((headers, body))

        assert (response.status_code, response.content) == (202, b"")
    assert relay.recorded == []
    assert relay.rejected == {}


async def test_a_legacy_clients_response_is_accepted(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay:
        headers, _ = legacy("ping")
        response = await relay.post((headers, {"jsonrpc": "2.0", "id": "s-1", "result": {}}))

        assert (response.status_code, response.content) == (202, b"")


@pytest.mark.parametrize(("era", "status"), [(modern, 404), (legacy, 200)])
@pytest.mark.parametrize("method", ["tools/dance", "prompts/list", "__proto__", "x" * 100_000])
async def test_an_unknown_method_is_404_and_not_a_label(tmp_path: Path, era: Any, status: int, method: str) -> None:
    headers, body = era(method)
    async with rig(tmp_path) as relay:
        response = await relay.post((headers, body))

        assert (response.status_code, response.json()["error"]["code"]) == (status, -32601)
    (operation,) = relay.operations("server")
    assert (operation.method, operation.error_type) == ("_unknown", "-32601")


# -- sizes


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_that_is_too_large_is_refused(tmp_path: Path, *, declared: bool) -> None:
    async def pieces() -> Any:
        for _ in range(100):
            yield b" " * 1000

    async with rig(tmp_path, requests={"max_bytes": 50_000}) as relay:
        headers = {**CALL_HEADERS, **bearer("alice")}
        content = b" " * 100_000 if declared else pieces()
        response = await relay.http.post("/ws/team", content=content, headers=headers)

        assert (response.status_code, response.json()["error"]["code"]) == (413, 413)
        assert "50000 bytes" in response.json()["error"]["message"]
    assert relay.rejected == {"too_large": 1}


async def test_a_body_of_just_the_size_that_is_allowed_is_read(tmp_path: Path) -> None:
    headers, body = legacy("ping")
    content = json.dumps(body).encode().ljust(50_000)
    async with rig(tmp_path, requests={"max_bytes": 50_000}) as relay:
        assert (await relay.post((headers, content))).status_code == 200


async def test_a_body_in_pieces_is_put_together(tmp_path: Path) -> None:
    headers, body = legacy("ping")

    async def pieces() -> Any:
        for byte in json.dumps(body).encode():
            yield bytes([byte])

    async with rig(tmp_path) as relay:
        response = await relay.http.post("/ws/team", content=pieces(), headers={**headers, **bearer("alice")})

        assert response.json()["result"] == {}
