"""Prompts of many servers in one workspace: listed together, got from the one that has them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import SSE_END, SSE_HEAD, Do, Request, Steps, answered, event, head, raw, result, whole
from tests.relay.offering import ERAS, Offering, asked, asking
from tests.relay.rig import rig

UNAVAILABLE = "callscope/unavailable"


@pytest.mark.parametrize("upstream", ERAS)
@pytest.mark.parametrize("client", ERAS)
async def test_prompts_of_all_servers_are_listed_in_configuration_order(
    tmp_path: Path, client: str, upstream: str
) -> None:
    async with (
        raw(Offering(upstream, prompts=["b", "a", "c"], page=1)) as first,
        raw(Offering(upstream, prompts=["a"])) as second,
        rig(tmp_path, {"zed": first, "abc": second}) as relay,
    ):
        result = (await relay.post(asking(client, "prompts/list"))).json()["result"]

        names = [prompt["name"] for prompt in result["prompts"]]
        assert names == ["zed__b", "zed__a", "zed__c", "abc__a"]
        assert [prompt["title"] for prompt in result["prompts"]] == ["B", "A", "C", "A"]
        modern = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
        assert {name: result[name] for name in modern if name in result} == (modern if client == "modern" else {})
        assert len(asked(first.requests, "prompts/list")) == 3
        assert UNAVAILABLE not in result.get("_meta", {})


@pytest.mark.parametrize(
    ("steps", "error_type"),
    [
        ([whole(b"", 503)], "upstream_http_error"),
        ([Do.CLOSE], "upstream_unreachable"),
        ([whole(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}')], "upstream_protocol_error"),
    ],
)
async def test_a_server_that_fails_is_named_and_the_others_prompts_stand(
    tmp_path: Path, steps: Steps, error_type: str
) -> None:
    broken = Offering(prompts=["x"], instead={"prompts/list": steps})
    async with (
        raw(broken) as first,
        raw(Offering(prompts=["a"])) as second,
        rig(tmp_path, {"broken": first, "works": second}) as relay,
    ):
        result = (await relay.post(asking("modern", "prompts/list"))).json()["result"]

        assert [prompt["name"] for prompt in result["prompts"]] == ["works__a"]
        (unavailable,) = result["_meta"][UNAVAILABLE]
        assert (unavailable["server"], unavailable["error_type"]) == ("broken", error_type)
        assert result["ttlMs"] == 0


@pytest.mark.parametrize("item", ["x", {"title": "without a name"}, {"name": 5}])
async def test_an_invalid_prompt_in_a_list_reaches_no_client(tmp_path: Path, item: Any) -> None:
    def broken(request: Request) -> Steps:
        if request.message.get("method") == "prompts/list":
            return [answered(request, {"resultType": "complete", "prompts": [item]})]
        return Offering(prompts=[])(request)

    async with (
        raw(broken) as first,
        raw(Offering(prompts=["a"])) as second,
        rig(tmp_path, {"broken": first, "works": second}) as relay,
    ):
        result = (await relay.post(asking("modern", "prompts/list"))).json()["result"]

    assert [prompt["name"] for prompt in result["prompts"]] == ["works__a"]
    (unavailable,) = result["_meta"][UNAVAILABLE]
    assert (unavailable["server"], unavailable["error_type"]) == ("broken", "upstream_protocol_error")


@pytest.mark.parametrize("client", ERAS)
async def test_a_server_that_declares_no_prompts_is_not_asked_for_any(tmp_path: Path, client: str) -> None:
    async with (
        raw(Offering()) as without,
        raw(Offering(prompts=["a"])) as has,
        rig(tmp_path, {"without": without, "has": has}) as relay,
    ):
        await relay.post(asking(client, "tools/list"))
        await relay.post(asking(client, "prompts/list"))
        response = await relay.post(asking(client, "prompts/get", {"name": "without__a"}))

        assert response.json()["error"]["code"] == -32602
        assert response.status_code == (400 if client == "modern" else 200)
        assert asked(without.requests, "prompts/list", "prompts/get") == []


@pytest.mark.parametrize("upstream", ERAS)
@pytest.mark.parametrize("client", ERAS)
async def test_a_prompt_is_requested_by_its_own_name_with_unchanged_arguments(
    tmp_path: Path, client: str, upstream: str
) -> None:
    arguments = b'{"one" : "\\u00e9",  "n":1.50}'
    async with raw(Offering(upstream, prompts=["a__b"])) as server, rig(tmp_path, {"files": server}) as relay:
        headers, body = asking(client, "prompts/get", {"name": "files__a__b", "arguments": "HERE"})
        response = await relay.post((headers, json.dumps(body).encode().replace(b'"HERE"', arguments)))

        assert response.json()["result"]["description"] == "a__b"
        assert response.json()["result"].get("resultType") == ("complete" if client == "modern" else None)
        assert "ttlMs" not in response.json()["result"] or upstream == client == "modern"
        (got,) = asked(server.requests, "prompts/get")
        assert arguments in got.body
        assert got.message["params"]["name"] == "a__b"
        if upstream == "modern":
            assert (got.headers["mcp-method"], got.headers["mcp-name"]) == ("prompts/get", "a__b")


@pytest.mark.parametrize(
    ("client", "name"),
    [
        *((client, name) for client in ERAS for name in ("files__nothing", "nobody__a", "a")),
        ("legacy", 5),  # of a modern client no header could agree with these
        ("legacy", None),
    ],
)
async def test_an_unknown_prompt_is_a_bad_request(tmp_path: Path, client: str, name: Any) -> None:
    async with raw(Offering(prompts=["a"])) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(asking(client, "prompts/get", {"name": name}))

        assert response.json()["error"]["code"] == -32602
        assert response.status_code == (400 if client == "modern" else 200)


async def test_input_required_of_a_prompt_passes_unchanged_between_modern_peers(tmp_path: Path) -> None:
    asks = {
        "resultType": "input_required",
        "inputRequests": {"who": {"method": "roots/list"}},
        "requestState": "opaque:1",
    }

    def behave(request: Request) -> Steps:
        if request.message.get("method") != "prompts/get":
            return Offering(prompts=["a"])(request)
        answers = request.message["params"].get("inputResponses")
        return [answered(request, {"resultType": "complete", "messages": []} if answers else asks)]

    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        first = await relay.post(asking("modern", "prompts/get", {"name": "files__a"}))
        assert first.json()["result"] == asks
        given = {"inputResponses": {"who": {"roots": []}}, "requestState": "opaque:1"}
        second = await relay.post(asking("modern", "prompts/get", {"name": "files__a", **given}))

        assert second.json()["result"] == {"resultType": "complete", "messages": []}
        params = asked(server.requests, "prompts/get")[1].message["params"]
        assert {name: params[name] for name in given} == given


async def test_progress_comes_on_the_prompts_own_stream(tmp_path: Path) -> None:
    def behave(request: Request) -> Steps:
        if request.message.get("method") != "prompts/get":
            return Offering(prompts=["a"])(request)
        token = request.message["params"]["_meta"]["progressToken"]
        progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progress": 1}}
        progress["params"] = {"progressToken": token, "progress": 1}
        done = result(request, {"resultType": "complete", "messages": []})
        return [SSE_HEAD, event(progress), event(done), SSE_END]

    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(asking("modern", "prompts/get", {"name": "files__a"}, progressToken="p-1"))

        frames = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
        assert frames[0]["params"] == {"progressToken": "p-1", "progress": 1}
        assert frames[1]["result"] == {"resultType": "complete", "messages": []}


async def test_a_server_that_is_too_slow_is_named_and_its_operation_is_a_timeout(tmp_path: Path) -> None:
    slow = Offering(prompts=["a"], instead={"prompts/get": [Do.HOLD]})
    async with raw(slow) as server, rig(tmp_path, {"files": {"url": server.url, "timeout": 0.2}}) as relay:
        response = await relay.post(asking("modern", "prompts/get", {"name": "files__a"}))

        error = response.json()["error"]
        assert (error["code"], error["data"]) == (-32603, {"error_type": "upstream_timeout", "server": "files"})
    (upstream,) = [one for one in relay.operations("client") if one.method == "prompts/get"]
    assert upstream.error_type == "upstream_timeout"


@pytest.mark.parametrize(("code", "label"), [(-32602, "-32602"), (4711, "jsonrpc_error")])
async def test_a_prompt_request_is_an_operation_on_both_sides_and_not_a_call(
    tmp_path: Path, code: int, label: str
) -> None:
    offering = Offering(prompts=["a"])

    def behave(request: Request) -> Steps:
        if request.message.get("params", {}).get("name") == "bad":
            return offering.error(request, code, "no")
        return offering(request)

    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        await relay.post(asking("modern", "prompts/get", {"name": "files__a"}))
        await relay.post(asking("modern", "prompts/get", {"name": "files__bad"}))
    ours = [(one.method, one.error_type, one.token_id) for one in relay.operations("server")]
    assert ours == [("prompts/get", None, "alice"), ("prompts/get", label, "alice")]
    theirs = [one for one in relay.operations("client") if one.method == "prompts/get"]
    assert [(one.server_slug, one.error_type) for one in theirs] == [("files", None), ("files", "jsonrpc_error")]
    assert [*relay.starts, *relay.ends] == []


@pytest.mark.parametrize("method", ["prompts/list", "resources/list", "resources/templates/list", "tools/list"])
@pytest.mark.parametrize("client", ERAS)
async def test_a_list_has_one_page_and_rejects_cursors(tmp_path: Path, client: str, method: str) -> None:
    async with raw(Offering(prompts=["a"], resources={})) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(asking(client, method, {"cursor": "1"}))

        assert response.json()["error"]["code"] == -32602
        assert response.status_code == (400 if client == "modern" else 200)


async def test_an_invalid_response_is_reported_with_its_server(tmp_path: Path) -> None:
    broken = Offering(prompts=["a"], instead={"prompts/get": [head(200, "content-length: 0")]})
    async with raw(broken) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(asking("legacy", "prompts/get", {"name": "files__a"}))

        assert response.json()["error"]["data"]["server"] == "files"
        assert response.json()["error"]["code"] == -32603
