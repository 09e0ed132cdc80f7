"""What a workspace says that it can do is what it does."""

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import raw, tool
from tests.relay.offering import ERAS, Offering, asked, asking
from tests.relay.rig import Rig, rig

METHODS = {
    "prompts": ("prompts/list", {}),
    "resources": ("resources/templates/list", {}),
    "completions": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "a__p"}, "argument": {"name": "x", "value": ""}},
    ),
}


async def declared(relay: Rig, client: str) -> Any:
    if client == "modern":
        return (await relay.post(asking(client, "server/discover"))).json()["result"]["capabilities"]
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
    return (await relay.post(asking(client, "initialize", params))).json()["result"]["capabilities"]


@pytest.mark.parametrize("upstream", ERAS)
@pytest.mark.parametrize("client", ERAS)
async def test_the_first_initialize_has_the_capabilities_of_all_servers(
    tmp_path: Path, client: str, upstream: str
) -> None:
    async with (
        raw(Offering(upstream, prompts=["p"])) as first,
        raw(Offering(upstream, resources={}, completions=[])) as second,
        rig(tmp_path, {"a": first, "b": second}) as relay,
    ):
        assert set(await declared(relay, client)) == {"tools", "prompts", "resources", "completions"}


@pytest.mark.parametrize("client", ERAS)
@pytest.mark.parametrize("name", METHODS)
async def test_a_capability_without_a_server_is_not_declared_and_its_methods_are_unknown(
    tmp_path: Path, client: str, name: str
) -> None:
    offering = Offering(prompts=["p"], resources={}, completions=[])
    setattr(offering, name, None)
    async with raw(offering) as server, rig(tmp_path, {"a": server}) as relay:
        assert name not in await declared(relay, client)
        for other, (method, params) in METHODS.items():
            answer = await relay.post(asking(client, method, params))
            code = answer.json().get("error", {}).get("code")
            assert (code == -32601) == (other == name), other
            if other == name:
                assert answer.status_code == (404 if client == "modern" else 200)


@pytest.mark.parametrize("client", ERAS)
async def test_a_server_that_is_down_does_not_hide_the_capabilities_of_others(tmp_path: Path, client: str) -> None:
    async with (
        raw(Offering(prompts=["p"])) as server,
        rig(tmp_path, {"down": {"url": "http://127.0.0.1:1/mcp"}, "a": server}) as relay,
    ):
        assert {"tools", "prompts"} <= set(await declared(relay, client))


async def test_an_invalid_param_header_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = {
        "name": "bad",
        "inputSchema": {"type": "object", "properties": {"x": {"type": "string", "x-mcp-header": "a b"}}},
    }
    caplog.set_level(logging.WARNING, "gateway.relay.catalog")
    async with raw(Offering(tools=[bad, tool("good")])) as server, rig(tmp_path, {"files": server}) as relay:
        for _ in range(3):
            tools = (await relay.post(asking("modern", "tools/list"))).json()["result"]["tools"]
            assert [one["name"] for one in tools] == ["files__good"]
    assert len(asked(server.requests, "tools/list")) >= 3
    (record,) = caplog.records
    assert "files" in record.getMessage()
    assert "bad" in record.getMessage()


@pytest.mark.parametrize("meta", [{}, {"io.modelcontextprotocol/logLevel": "loud"}])
async def test_an_unknown_method_is_not_a_label_even_with_invalid_params(tmp_path: Path, meta: Any) -> None:
    async with raw(Offering()) as server, rig(tmp_path, {"files": server}) as relay:
        await relay.post(asking("modern", "tools/dance", **meta))
    (operation,) = relay.operations("server")
    assert operation.method == "_unknown"
