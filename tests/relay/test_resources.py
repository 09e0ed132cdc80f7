"""Resources of many servers: they keep their URIs, and are read where they are."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.http1.raw import Do, Request, Steps, eventually, raw, whole
from tests.relay.offering import ERAS, Offering, asked, asking
from tests.relay.rig import rig

LISTS = {"resources/list": "resources", "resources/templates/list": "resourceTemplates"}


@pytest.mark.parametrize("upstream", ERAS)
@pytest.mark.parametrize("client", ERAS)
async def test_resources_and_templates_of_all_servers_keep_their_uris(
    tmp_path: Path, client: str, upstream: str
) -> None:
    one = Offering(upstream, resources={"a://2": "", "a://1": ""}, templates=["a://t/{x}"], page=1)
    two = Offering(upstream, resources={"b://1": ""}, templates=["b://t/{x}"])
    async with raw(one) as first, raw(two) as second, rig(tmp_path, {"zed": first, "abc": second}) as relay:
        found = {m: (await relay.post(asking(client, m))).json()["result"] for m in LISTS}

        assert [it["uri"] for it in found["resources/list"]["resources"]] == ["a://2", "a://1", "b://1"]
        listed = found["resources/templates/list"]["resourceTemplates"]
        assert [it["uriTemplate"] for it in listed] == ["a://t/{x}", "b://t/{x}"]
        for result in found.values():
            modern = ("complete", 0, "private") if client == "modern" else (None, None, None)
            assert tuple(result.get(name) for name in ("resultType", "ttlMs", "cacheScope")) == modern


@pytest.mark.parametrize("upstream", ERAS)
@pytest.mark.parametrize("client", ERAS)
async def test_a_resource_is_read_where_it_is_listed_and_nowhere_else(
    tmp_path: Path, client: str, upstream: str
) -> None:
    async with (
        raw(Offering(upstream, resources={"a://1": "of a"})) as first,
        raw(Offering(upstream, resources={"b://1": "of b"})) as second,
        rig(tmp_path, {"a": first, "b": second}) as relay,
    ):
        response = await relay.post(asking(client, "resources/read", {"uri": "b://1"}))

        assert response.json()["result"]["contents"] == [{"uri": "b://1", "text": "of b"}]
        assert asked(first.requests) == []
        (read,) = asked(second.requests)
        assert read.message["params"]["uri"] == "b://1"
        if upstream == "modern":
            assert (read.headers["mcp-method"], read.headers["mcp-name"]) == ("resources/read", "b://1")


async def test_a_uri_that_matches_a_template_goes_to_the_server_of_the_template(tmp_path: Path) -> None:
    async with (
        raw(Offering(resources={})) as first,
        raw(Offering(resources={}, templates=["t://{id}/data"], hidden={"t://7/data": "seven"})) as second,
        rig(tmp_path, {"a": first, "b": second}) as relay,
    ):
        response = await relay.post(asking("modern", "resources/read", {"uri": "t://7/data"}))

        assert response.json()["result"]["contents"][0]["text"] == "seven"
        assert asked(first.requests) == []


async def test_a_uri_that_nobody_lists_is_looked_for_at_every_server_with_resources(tmp_path: Path) -> None:
    async with (
        raw(Offering(prompts=["p"])) as without,
        raw(Offering("legacy", resources={})) as first,
        raw(Offering(resources={}, hidden={"h://1": "found"})) as second,
        rig(tmp_path, {"without": without, "a": first, "b": second}) as relay,
    ):
        response = await relay.post(asking("modern", "resources/read", {"uri": "h://1"}))

        assert response.json()["result"]["contents"][0]["text"] == "found"
        assert len(asked(first.requests)) == 1
        assert asked(without.requests) == []


@pytest.mark.parametrize("steps", [[Do.CLOSE], [whole(b"", 503)]])
async def test_a_server_that_is_down_does_not_hide_resources_of_others(tmp_path: Path, steps: Steps) -> None:
    down = Offering(resources={}, instead=dict.fromkeys(("resources/read", *LISTS), steps))
    async with (
        raw(down) as first,
        raw(Offering(resources={}, hidden={"h://1": "found"})) as second,
        rig(tmp_path, {"down": first, "b": second}) as relay,
    ):
        found = await relay.post(asking("modern", "resources/read", {"uri": "h://1"}))
        missing = await relay.post(asking("modern", "resources/read", {"uri": "h://2"}))

        assert found.json()["result"]["contents"][0]["text"] == "found"
        error = missing.json()["error"]  # the one that is down may have it
        assert (error["code"], error["data"]["server"]) == (-32603, "down")


@pytest.mark.parametrize(
    ("upstream", "says_which"),
    [("modern", True), ("legacy", True), ("legacy", False)],  # of a modern server -32602 alone may mean anything
)
@pytest.mark.parametrize("client", ERAS)
async def test_a_missing_resource_has_the_code_of_the_clients_era_and_its_uri(
    tmp_path: Path, client: str, upstream: str, *, says_which: bool
) -> None:
    offering = Offering(upstream, resources={"a://1": ""})

    def behave(request: Request) -> Steps:
        if request.message.get("method") == "resources/read" and not says_which:
            return offering.error(request, -32002, "no such resource")
        return offering(request)

    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(asking(client, "resources/read", {"uri": "a://2"}))

        error = response.json()["error"]
        assert error["code"] == (-32602 if client == "modern" else -32002)
        if client == "modern" or says_which:  # between legacy peers the server's own words stand
            assert error["data"] == {"uri": "a://2"}
        assert response.status_code == (400 if client == "modern" else 200)


async def test_a_template_belongs_to_the_server_that_lists_it(tmp_path: Path) -> None:
    async with (
        raw(Offering(resources={}, templates=["a://{x}"], completions=["other"])) as first,
        raw(Offering(resources={}, templates=["b://find{?q}"], completions=["value"])) as second,
        rig(tmp_path, {"a": first, "b": second}) as relay,
    ):
        params = {"ref": {"type": "ref/resource", "uri": "b://find{?q}"}, "argument": {"name": "q", "value": ""}}
        response = await relay.post(asking("modern", "completion/complete", params))

        assert response.json()["result"]["completion"] == {"values": ["value"]}
        assert asked(first.requests) == []


async def test_bad_params_at_a_modern_server_are_not_a_missing_resource_to_a_legacy_client(tmp_path: Path) -> None:
    offering = Offering(resources={"a://1": ""})

    def behave(request: Request) -> Steps:
        if request.message.get("method") == "resources/read":
            return offering.error(request, -32602, "the range is none")
        return offering(request)

    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(asking("legacy", "resources/read", {"uri": "a://1"}))

        assert response.json()["error"] == {"code": -32602, "message": "the range is none"}


async def test_requests_that_come_while_the_servers_are_listed_wait_for_the_list(tmp_path: Path) -> None:
    go = asyncio.Event()
    offering = Offering(resources={"b://1": "of b"})

    def held(request: Request) -> Steps:
        steps = offering(request)
        return [go, *steps] if request.message.get("method") == "resources/list" else steps

    async with (
        raw(Offering(resources={})) as first,
        raw(held) as second,
        rig(tmp_path, {"a": first, "b": second}) as relay,
    ):
        message = asking("modern", "resources/read", {"uri": "b://1"})
        reads = [asyncio.create_task(relay.post(message)) for _ in range(3)]
        assert await eventually(lambda: bool(asked(second.requests, "resources/list")))
        await relay.post(asking("modern", "tools/list"))  # by now all three wait
        go.set()
        answers = [response.json() for response in await asyncio.gather(*reads)]

        assert [answer["result"]["contents"][0]["text"] for answer in answers] == ["of b"] * 3
        assert len(asked(second.requests, "resources/list")) == 1
        assert asked(first.requests, "resources/read") == []


@pytest.mark.parametrize("client", ERAS)
@pytest.mark.parametrize("uri", [b"5", b"null", b"[]"])
async def test_an_invalid_uri_is_rejected(tmp_path: Path, client: str, uri: bytes) -> None:
    async with raw(Offering(resources={"a://1": ""})) as server, rig(tmp_path, {"files": server}) as relay:
        headers, body = asking(client, "resources/read", {"uri": "HERE"})
        response = await relay.post((headers, json.dumps(body).encode().replace(b'"HERE"', uri)))

        assert response.json()["error"]["code"] in (-32602, -32020)
        assert asked(server.requests) == []


async def test_each_token_reads_resources_in_its_own_session(tmp_path: Path) -> None:
    """A session for each token: what one member's session may read is not read through another's."""
    seen: list[tuple[str, str]] = []
    sessions = iter(range(1, 100))
    offering = Offering("legacy", resources={"a://1": "x"})

    def behave(request: Request) -> Steps:
        method = request.message.get("method")
        if method == "initialize":
            whose = f"s-{next(sessions)}"
            (answer,) = offering(request)
            assert isinstance(answer, bytes)
            return [answer.replace(b"\r\n\r\n", b"\r\nmcp-session-id: %b\r\n\r\n" % whose.encode(), 1)]
        if method == "resources/read":
            seen.append((request.headers["mcp-session-id"], request.message["params"]["uri"]))
        return offering(request)

    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        for token in ("alice", "bot", "alice"):
            await relay.post(asking("legacy", "resources/read", {"uri": "a://1"}), token=token)

        (alice, _), (bot, _), (again, _) = seen
        assert alice == again != bot
