"""Messages that are made to do harm, and mistakes of the gateway's own: there is always one answer."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.relay import tool_call as tool_calls
from tests.http1.raw import Request, Steps, answered, raw
from tests.http1.raw import modern as modern_server
from tests.relay.rig import JSON, MODERN_META, legacy, rig, tool_call

CALL_HEADERS, CALL = tool_call()


def hostile() -> list[Any]:
    """Messages each of which once was, or might be, more than some layer can take."""
    deep = [b"[" * n + b"]" * n for n in (900, 950, 970, 980, 985, 990, 995)]
    texts = [b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\u0000"', b'""', b'"\x7f"']
    numbers = [b"1e999", b"-0", b"1" + b"0" * 4000, b"1" + b"0" * 5000, b"NaN", b"1.5"]
    odd = [*texts, *numbers, b"{}", b"[]", b"null", b"true", *deep]
    templates = [
        b'{"jsonrpc":"2.0","id":%b,"method":"tools/call","params":{"name":"files__act","_meta":META}}',
        b'{"jsonrpc":"2.0","id":1,"method":%b,"params":{"name":"files__act","_meta":META}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%b,"_meta":META}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"files__act","arguments":%b,"_meta":META}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"files__act","_meta":%b}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"files__act","x":%b,"_meta":META}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"files__act","_meta":{"traceparent":%b,"tracestate":%b}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"files__act","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":%b,"io.modelcontextprotocol/clientInfo":%b}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":%b}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":%b,"_meta":META}}',
        b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":%b}',
        b'{"jsonrpc":%b,"id":1,"method":"tools/call"}',
    ]
    meta = json.dumps(MODERN_META).encode()
    return [t.replace(b"META", meta).replace(b"%b", value) for t in templates for value in odd]


@pytest.mark.parametrize("headers", [CALL_HEADERS, legacy("tools/call")[0], JSON], ids=["modern", "legacy", "bare"])
async def test_hostile_messages_do_not_break_the_relay_and_every_started_call_ends(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    messages = hostile()
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        for body in messages:
            response = await relay.post((headers, body))
            answer = response.json()
            assert response.status_code in {200, 202, 400, 404}, body[:200]
            assert answer["jsonrpc"] == "2.0"
            assert answer.get("error", {}).get("code") != -32603, body[:200]
    assert {start.call_id for start in relay.starts} <= {end.call_id for end in relay.ends}
    assert "gateway_error" not in {end.error_type for end in relay.ends}
    assert max(len(line) for line in _lines(tmp_path)) < 8192


def _lines(folder: Path) -> list[bytes]:
    return [line for path in folder.rglob("*.jsonl") for line in path.read_bytes().splitlines()]


LONG = "x" * 1_000_000
TRACED = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": LONG}
CLIENT: dict[str, Any] = {"io.modelcontextprotocol/clientInfo": {"name": LONG, "version": LONG}}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(tool_call(id_=LONG), id="id"),
        pytest.param(tool_call(**CLIENT), id="client"),
        pytest.param(tool_call(f"files__{LONG}"), id="name"),
        pytest.param(tool_call(**TRACED), id="tracestate"),
        pytest.param(tool_call(arguments={"x": LONG}), id="arguments"),
    ],
)
async def test_a_client_cannot_make_a_journal_line_long(tmp_path: Path, message: Any) -> None:
    headers, body = message
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post((headers, body))

        assert response.json()["id"] == body["id"]
    assert len(relay.ends) == 1
    assert max(len(line) for line in _lines(tmp_path)) < 8192


async def test_an_internal_error_in_a_call_is_a_well_formed_response_and_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake with a secret in it: mwt_0123456789abcdef0123456789abcdef")

    monkeypatch.setattr(tool_calls, "_failure_of", broken)
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(tool_call(id_="my id"))

        error = response.json()["error"]
        assert (response.status_code, response.json()["id"], error["code"]) == (200, "my id", -32603)
        assert error["data"]["error_type"] == "gateway_error"
        assert "mwt_" not in response.text
    assert relay.end.error_type == "gateway_error"
    assert "mwt_" not in (relay.end.error_message or "")
    assert "a call failed in the gateway" in caplog.text


async def test_an_internal_error_outside_of_calls_is_a_well_formed_response(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr("gateway.mcp.inbound.read", broken)
    async with rig(tmp_path) as relay:
        response = await relay.post(tool_call())

        assert (response.status_code, response.json()["error"]["code"]) == (500, -32603)
        assert "a mistake" not in response.text
    assert relay.rejected == {"gateway_error": 1}
    assert "a mistake" in caplog.text


async def test_concurrent_clients_get_their_own_responses(tmp_path: Path) -> None:
    def echo(request: Request) -> Steps:
        return [answered(request, {"content": [], "mine": request.message["params"]["arguments"]["mine"]})]

    async with raw(modern_server(echo)) as server, rig(tmp_path, {"files": server}) as relay:

        async def one(number: int) -> None:
            response = await relay.post(tool_call(arguments={"mine": number}, id_=f"call-{number}"))
            answer = response.json()
            assert (answer["id"], answer["result"]["mine"]) == (f"call-{number}", number)

        await asyncio.gather(*(one(number) for number in range(100)))
    assert len(relay.ends) == 100
