"""A workspace as its clients see it: one list of tools, and calls that reach servers of every era and transport."""

import json
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.scripted_servers.verbatim import verbatim
from tests.system.clients import Mode, call, client, post
from tests.system.gateway_process import Gateway, eventually, running

MODES: tuple[Mode, ...] = ("auto", "legacy")
REVISION = {"modern": "2026-07-28", "legacy": "2025-11-25", "local": "2026-07-28"}
"""What the gateway speaks with each server."""

VENDORED = (
    b'{"resultType":"complete", "vendor/key": {"big":123456789012345678901234567890,"exact":1.10},'
    b'"content":[{"type":"text","text":"caf\\u00e9 \\/ \xc3\xa9","unknown":[null, true ]}],\n'
    b'"structuredContent":{"z":1,"a":2},"_meta":{"x.example/y":0.30000000000000004}}'
)


@pytest.mark.parametrize("mode", MODES)
async def test_the_tools_of_all_servers_are_one_list_and_a_dead_server_does_not_fail_it(
    gateway: Gateway, mode: Mode
) -> None:
    async with client(gateway, "alice", mode) as connected:
        listing = await connected.list_tools()

    names = [tool.name for tool in listing.tools]
    assert len(names) == len(set(names))
    for server in ("modern", "legacy", "local", "hasty"):
        assert [name for name in names if name.startswith(f"{server}__")] == [
            f"{server}__{tool}" for tool in ("echo", "pause", "count", "tool_error", "jsonrpc_error", "hang")
        ]
    assert {"broken__echo", "broken__garbage"} <= set(names)
    assert not [name for name in names if name.startswith("dead__")]
    [missing] = (listing.meta or {})["callscope/unavailable"]
    assert (missing["server"], missing["error_type"]) == ("dead", "upstream_unreachable")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", ["modern", "legacy", "local"])
async def test_a_call_reaches_a_server_of_any_era_and_transport_from_a_client_of_either_era(
    gateway: Gateway, server: str, mode: Mode
) -> None:
    async with client(gateway, "alice", mode) as connected:
        result = await connected.call_tool(f"{server}__echo", {"word": "hällo", "deep": {"n": [1, None]}})
        assert connected.protocol_version == ("2026-07-28" if mode == "auto" else "2025-11-25")

    assert not result.is_error
    answer = json.loads(_text(result))
    assert answer["tool"] == "echo"
    assert answer["arguments"] == {"word": "hällo", "deep": {"n": [1, None]}}
    assert answer["revision"] == REVISION[server]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", ["modern", "legacy", "local"])
async def test_progress_streams_through(gateway: Gateway, server: str, mode: Mode) -> None:
    seen: list[tuple[float, float | None, str | None]] = []

    async def notice(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async with client(gateway, "alice", mode) as connected:
        result = await connected.call_tool(f"{server}__count", {}, progress_callback=notice)

    assert not result.is_error
    assert seen == [(step, 5.0, f"count: step {step} of 5") for step in range(1, 6)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("server", ["modern", "legacy", "local"])
async def test_what_a_server_says_of_a_failure_reaches_the_client_as_it_is(
    gateway: Gateway, server: str, mode: Mode
) -> None:
    async with client(gateway, "alice", mode) as connected:
        failed = await connected.call_tool(f"{server}__tool_error")
        with pytest.raises(MCPError) as refused:
            await connected.call_tool(f"{server}__jsonrpc_error")

    assert failed.is_error
    assert _text(failed) == "the tool says no"
    assert (refused.value.code, refused.value.message) == (1001, "the server says no")


def test_a_call_passes_byte_for_byte_what_nobody_knows_in_both_directions(tmp_path: Path) -> None:
    with verbatim(VENDORED) as server, running(tmp_path, {"vendor": {"url": server.url}}, {"alice": {}}) as gateway:
        arguments = b'{"big":123456789012345678901234567890,"exact":1.10,"text":"caf\\u00e9"}'
        message = call("vendor__echo")
        body = json.dumps(message["json"]).encode().replace(b'"arguments": {}', b'"arguments": ' + arguments)
        headers = {**message["headers"], "Content-Type": "application/json"}

        response = post(gateway, {"content": body, "headers": headers}, "alice")

        assert response.status_code == 200
        assert response.content.partition(b'"result":')[2].startswith(VENDORED)
        assert arguments in server.requests[0]


def test_a_call_goes_on_in_the_trace_that_its_client_began(tmp_path: Path) -> None:
    trace_id, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with verbatim(VENDORED) as server, running(tmp_path, {"vendor": {"url": server.url}}, {"alice": {}}) as gateway:
        message = call("vendor__echo")
        message["json"]["params"]["_meta"]["traceparent"] = f"00-{trace_id}-{parent}-01"
        assert post(gateway, message, "alice").status_code == 200

        [recorded] = eventually(lambda: gateway.ask("/analytics/calls")["calls"])
        detail = gateway.ask(f"/analytics/calls/{recorded['call_id']}")

    assert (detail["trace_id"], detail["parent_span_id"]) == (trace_id, parent)
    sent = json.loads(server.requests[0])["params"]["_meta"]["traceparent"]
    assert sent == f"00-{trace_id}-{detail['upstream_span_id']}-01"


def _text(result: Any) -> str:
    [block] = result.content
    text: str = block.text
    return text
