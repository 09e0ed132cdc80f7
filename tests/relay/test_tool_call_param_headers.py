"""Arguments that are repeated in `Mcp-Param-*` headers, from the client to the upstream."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import TEXT, Behave, Request, Steps, answered, error, legacy, modern, raw, tool, whole
from tests.relay.rig import legacy_call, rig, tool_call

MIRRORED = {
    "name": "act",
    "inputSchema": {
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "size": {"type": "integer", "x-mcp-header": "Size"},
            "query": {"type": "string"},
        },
    },
}


def server(*tools: Any, act: Behave | None = None) -> Behave:
    return modern(act, tools or [MIRRORED])


def params_of(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name.startswith("mcp-param-")}


async def test_a_legacy_clients_arguments_are_mirrored_for_the_upstream(tmp_path: Path) -> None:
    async with raw(server()) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        await relay.post(legacy_call(arguments={"region": "eu", "size": 3, "query": "q"}))
        await relay.post(legacy_call(arguments={"region": " ü", "size": None}))

        assert params_of(upstream.calls[0]) == {"mcp-param-region": "eu", "mcp-param-size": "3"}
        assert params_of(upstream.calls[1]) == {"mcp-param-region": "=?base64?IMO8?="}


async def test_param_headers_that_agree_and_unknown_ones_are_passed_on(tmp_path: Path) -> None:
    async with raw(server(MIRRORED, tool("plain"))) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        for message in (tool_call(arguments={"region": "eu"}), tool_call("files__plain")):
            headers = {"mcp_param_region": "eu"} if message[1]["params"]["arguments"] else {}
            response = await relay.post(message, mcp_param_later="x", **headers)
            assert response.status_code == 200

        assert params_of(upstream.calls[0]) == {"mcp-param-region": "eu", "mcp-param-later": "x"}
        assert params_of(upstream.calls[1]) == {"mcp-param-later": "x"}


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ({"region": "eu"}, {}),
        ({"region": "eu"}, {"mcp_param_region": "us"}),
        ({}, {"mcp_param_region": "eu"}),
        ({"size": 3}, {"mcp_param_size": "three"}),
        ({"region": "Hello"}, {"mcp_param_region": "=?base64?SGVs!!!bG8=?="}),
    ],
)
@pytest.mark.parametrize("server_of", [modern, legacy])
async def test_param_headers_that_contradict_the_arguments_are_a_bad_request(
    tmp_path: Path, arguments: Any, headers: dict[str, str], server_of: Any
) -> None:
    async with raw(server_of(None, [MIRRORED])) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        response = await relay.post(tool_call(arguments=arguments, id_="mine"), **headers)

        assert response.status_code == 400
        assert (response.json()["id"], response.json()["error"]["code"]) == ("mine", -32020)
        assert upstream.calls == []
    assert [*relay.starts, *relay.ends] == []
    assert relay.rejected["bad_request"] == 1


async def test_a_base64_param_header_is_compared_decoded(tmp_path: Path) -> None:
    async with raw(server()) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        response = await relay.post(tool_call(arguments={"region": "Hello"}), mcp_param_region="=?base64?SGVsbG8=?=")

        assert response.status_code == 200
        assert params_of(upstream.calls[0]) == {"mcp-param-region": "Hello"}


class Changing:
    """A modern server whose tool begins to mirror an argument after its first listing."""

    def __init__(self) -> None:
        self.lists = 0
        self._plain = {**MIRRORED, "inputSchema": {"type": "object", "properties": {"region": {"type": "string"}}}}

    def __call__(self, request: Request) -> Steps:
        if request.message["method"] == "tools/list":
            self.lists += 1
            return server(self._plain if self.lists == 1 else MIRRORED)(request)
        return server(act=self._act)(request)

    @staticmethod
    def _act(request: Request) -> Steps:
        if params_of(request) != {"mcp-param-region": "eu"}:
            return [whole(json.dumps(error(request, -32020, "Mcp-Param-Region is missing")).encode(), 400)]
        return [answered(request, TEXT)]


async def test_a_header_mismatch_of_a_changed_tool_is_repaired_by_a_new_listing(tmp_path: Path) -> None:
    behave = Changing()
    async with raw(behave) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        response = await relay.post(legacy_call(arguments={"region": "eu"}))

        assert response.json()["result"] == TEXT
        assert behave.lists == 2
        assert len(upstream.calls) == 2
    assert relay.end.status == "success"


async def test_a_modern_client_with_an_old_listing_gets_a_header_mismatch(tmp_path: Path) -> None:
    async with raw(Changing()) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        response = await relay.post(tool_call(arguments={"region": "eu"}))
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32020)

        again = await relay.post(tool_call(arguments={"region": "eu"}), mcp_param_region="eu")
        assert again.status_code == 200


async def test_a_header_mismatch_that_the_listing_does_not_explain_is_not_repeated(tmp_path: Path) -> None:
    act = [0]

    def refuse(request: Request) -> Steps:
        act[0] += 1
        return [whole(json.dumps(error(request, -32020, "no")).encode(), 400)]

    async with raw(server(act=refuse)) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        response = await relay.post(tool_call(arguments={}))

        assert "error" in response.json()
        assert act == [1]
    assert relay.end.error_type == "jsonrpc_error"


async def test_a_tool_with_an_invalid_param_header_is_not_listed(tmp_path: Path) -> None:
    wrong = {**tool("wrong"), "inputSchema": {"type": "object", "properties": {"a": {"x-mcp-header": "b c"}}}}
    async with raw(server(wrong, tool("right"))) as upstream, rig(tmp_path, {"files": upstream}) as relay:
        listed = (await relay.post(({**legacy_call()[0]}, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))).json()

        assert [one["name"] for one in listed["result"]["tools"]] == ["files__right"]
