"""`subscriptions/listen`: what a modern client is acknowledged, and the notifications it gets."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.config import Config
from tests.relay.clients import until
from tests.relay.notifying_server import (
    CAN_CHANGE,
    EVERYTHING,
    LISTEN,
    SUBSCRIPTION,
    acknowledged,
    modern_client,
    notifying_server,
    resource_filter,
    servers,
    subject,
)
from tests.relay.offering import ERAS
from tests.relay.rig import PATH, SECRETS, bearer, member, modern, rig

TOOLS: Final[dict[str, Any]] = {"toolsListChanged": True}
A, B = "file:///a", "file:///b"


# -- what is acknowledged


async def test_the_acknowledgement_has_what_a_server_offers_and_the_request_id_in_its_own_type(
    tmp_path: Path,
) -> None:
    only_tools = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"listChanged": False}}
    async with (
        notifying_server(capabilities=only_tools, resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.listen(id_="listen-1", **EVERYTHING, **resource_filter(A)) as stream,
    ):
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"] == "text/event-stream"
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert await stream.next() == {
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"_meta": {SUBSCRIPTION: "listen-1"}, "notifications": TOOLS},
        }
        assert server.subscribed_uris == set()


async def test_what_one_server_offers_is_acknowledged_and_what_was_not_requested_is_not(tmp_path: Path) -> None:
    async with (
        notifying_server(capabilities={"prompts": {"listChanged": True}}) as one,
        notifying_server(capabilities={"tools": {"listChanged": True}}) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        client.listen(promptsListChanged=True, toolsListChanged=False) as stream,
    ):
        assert acknowledged(await stream.next()) == {"promptsListChanged": True}


async def test_servers_that_were_never_met_are_met_first(tmp_path: Path) -> None:
    async with (
        notifying_server(slow={"server/discover"}) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
    ):
        headers, body = modern(LISTEN, {"notifications": TOOLS})
        listens = client.http.stream("POST", PATH, content=json.dumps(body), headers={**bearer("alice"), **headers})
        opening = asyncio.create_task(listens.__aenter__())
        await until(lambda: relay.relay._streams._open)
        server.go.set()
        await opening
        try:
            await until(lambda: server.streams)
        finally:
            await listens.__aexit__(None, None, None)


async def test_the_servers_stream_is_open_before_the_client_gets_its_acknowledgement(tmp_path: Path) -> None:
    async with (
        notifying_server(slow={LISTEN}) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
    ):
        listens = client.listen(**TOOLS)
        opening = asyncio.create_task(listens.__aenter__())
        await until(lambda: server.count(LISTEN))
        assert not opening.done()
        assert relay.operations("server") == []
        server.go.set()
        stream = await opening
        assert acknowledged(await stream.next()) == TOOLS
        await listens.__aexit__(None, None, None)


@pytest.mark.parametrize("era", ERAS)
async def test_a_resource_that_its_server_rejects_is_left_out_and_the_others_stand(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A, B], refuses={A}) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.listen(**TOOLS, **resource_filter(A, B)) as stream,
    ):
        assert acknowledged(await stream.next()) == {**TOOLS, **resource_filter(B)}
        server.updates(A)
        server.updates(B)
        assert subject(await stream.next()) == B
        await until(lambda: server.subscribed_uris == {B})


async def test_a_server_that_rejects_the_whole_filter_still_sends_its_list_changes(tmp_path: Path) -> None:
    async with (
        notifying_server(resources=[A, B], refuses={A}, refuses_whole=True) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(id_=1, **TOOLS, **resource_filter(B)) as before,
        client.listen(id_=2, **TOOLS, **resource_filter(A)) as stream,
    ):
        assert acknowledged(await stream.next()) == TOOLS
        server.changes("tools")
        assert subject(await stream.next()) == subject(await before.next()) == "tools"
        server.updates(B)
        assert subject(await before.next()) == B


async def test_a_resource_of_a_server_without_subscriptions_is_not_acknowledged(tmp_path: Path) -> None:
    cannot = {**CAN_CHANGE, "resources": {"listChanged": True}}
    async with (
        notifying_server(resources=[A], capabilities=cannot) as one,
        notifying_server(resources=[B]) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        client.listen(**resource_filter(A, B)) as stream,
    ):
        assert acknowledged(await stream.next()) == resource_filter(B)
        assert (one.subscribed_uris, other.subscribed_uris) == (set(), {B})


async def test_a_resource_that_no_server_lists_is_subscribed_to_at_every_server(tmp_path: Path) -> None:
    async with (
        notifying_server("modern", resources=[A]) as one,
        notifying_server("legacy", refuses={"x:1"}) as other,
        notifying_server("legacy") as third,
        rig(tmp_path, servers(one, other, third)) as relay,
        modern_client(relay) as client,
        client.subscribed(**resource_filter("x:1")) as stream,
    ):
        assert (one.subscribed_uris, other.subscribed_uris, third.subscribed_uris) == ({"x:1"}, set(), {"x:1"})
        third.updates("x:1")
        assert subject(await stream.next()) == "x:1"


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_is_down_does_not_disturb_subscriptions_at_another(tmp_path: Path, era: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gone = contextlib.AsyncExitStack()
        one = await gone.enter_async_context(notifying_server(era, resources=[A, "file:///c"]))
        other = await stack.enter_async_context(notifying_server(resources=[B]))
        relay = await stack.enter_async_context(rig(tmp_path, servers(one, other)))
        client = await stack.enter_async_context(modern_client(relay))
        await stack.enter_async_context(client.subscribed(id_=1, **resource_filter(A)))
        await gone.aclose()

        await stack.enter_async_context(client.subscribed(id_=2, **resource_filter(B)))
        late = await stack.enter_async_context(client.listen(id_=3, **resource_filter("file:///c", B)))
        assert acknowledged(await late.next()) == resource_filter(B)
        assert other.subscribed_uris == {B}


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"notifications": None},
        {"notifications": []},
        {"notifications": {"toolsListChanged": "yes"}},
        {"notifications": {"resourceSubscriptions": "file:///a"}},
        {"notifications": {"resourceSubscriptions": [1]}},
        {"notifications": {"resourceSubscriptions": ["a:1"] * 1001}},
    ],
)
async def test_what_is_no_filter_is_a_bad_request(tmp_path: Path, params: Any) -> None:
    async with notifying_server() as server, rig(tmp_path, servers(server)) as relay:
        response = await relay.post(modern(LISTEN, params, id_="x"))

        assert response.status_code == 400
        assert (response.json()["id"], response.json()["error"]["code"]) == ("x", -32602)
        assert relay.relay._streams._open == {}
    assert [(one.method, one.error_type) for one in relay.operations("server")] == [(LISTEN, "-32602")]


# -- notifications


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_change_of_any_server_comes_once_with_the_subscription_id(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era) as one,
        notifying_server(era) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        client.subscribed(id_="mine", **EVERYTHING) as stream,
    ):
        frames = []
        for server, kind in [(one, "tools"), (other, "prompts"), (one, "resources")]:
            server.changes(kind)
            frames.append(await stream.next())
        other.changes("tools")
        frames.append(await stream.next())
    assert [frame["method"].split("/")[1] for frame in frames] == ["tools", "prompts", "resources", "tools"]
    assert [frame["params"]["_meta"][SUBSCRIPTION] for frame in frames] == ["mine"] * 4


@pytest.mark.parametrize("era", ERAS)
async def test_each_stream_gets_only_what_its_filter_has(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(id_=1, **TOOLS, **resource_filter(A)) as one,
        client.subscribed(id_=2, token="bot", **TOOLS, **resource_filter(A, B)) as other,
        client.subscribed(id_=3, **TOOLS) as lists,
    ):
        assert server.subscribed_uris == {A, B}
        server.updates(A)
        server.updates(B)
        server.changes("prompts")
        server.changes("tools")
        assert [subject(await one.next()) for _ in range(2)] == [A, "tools"]
        frames = [await other.next() for _ in range(3)]
        assert [subject(frame) for frame in frames] == [A, B, "tools"]
        assert frames[0]["params"] == {"uri": A, "_meta": {SUBSCRIPTION: 2}}
        assert subject(await lists.next()) == "tools"


async def test_streams_of_one_workspace_get_nothing_of_another(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        notifying_server() as theirs,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
    ):
        other = {"servers": {"x": {"url": theirs.url}}, "tokens": [member("stranger")]}
        whole = {"team": {"servers": servers(server), "tokens": [member("alice")]}, "other": other}
        relay.relay.apply(Config.model_validate({"workspaces": whole}))
        headers, body = modern(LISTEN, {"notifications": EVERYTHING})
        lines = {**bearer("stranger"), **headers}
        there = client.http.stream("POST", "/ws/other", content=json.dumps(body), headers=lines)
        async with client.subscribed(**EVERYTHING) as stream, there as response:
            assert response.status_code == 200
            await until(lambda: theirs.streams)
            theirs.changes("prompts")
            theirs.changes("resources")
            server.changes("tools")
            assert subject(await stream.next()) == "tools"


@pytest.mark.parametrize("era", ERAS)
async def test_an_update_of_a_part_goes_to_subscribers_of_the_whole_resource(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=["file:///dir", "file:///dir2"]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(id_=1, **resource_filter("file:///dir")) as stream,
        client.subscribed(id_=2, **resource_filter("file:///dir2")) as other,
    ):
        server.updates("file:///dir/a.txt", of="file:///dir")
        server.updates("file:///dir2")
        assert subject(await stream.next()) == "file:///dir/a.txt"
        assert subject(await other.next()) == "file:///dir2"


async def test_clients_that_subscribe_at_once_all_get_their_notifications(tmp_path: Path) -> None:
    uris = [f"file:///{number}" for number in range(12)]
    async with (
        notifying_server("modern", resources=uris[:6]) as one,
        notifying_server("legacy", resources=uris[6:]) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        listens = [client.subscribed(id_=uri, **resource_filter(uri)) for uri in uris]
        streams = await asyncio.gather(*(stack.enter_async_context(one) for one in listens))

        assert (one.subscribed_uris, other.subscribed_uris) == (set(uris[:6]), set(uris[6:]))
        for uri, stream in zip(uris, streams, strict=True):
            (one if uri in one.subscribed_uris else other).updates(uri)
            assert subject(await stream.next()) == uri


# -- what is recorded


async def test_the_time_until_it_is_acknowledged_is_recorded_not_how_long_it_goes_on(tmp_path: Path) -> None:
    async with notifying_server() as server, rig(tmp_path, servers(server)) as relay, modern_client(relay) as client:
        began = time.perf_counter()
        async with client.subscribed(**TOOLS) as stream:
            took = (time.perf_counter() - began) * 1e3
            (recorded,) = relay.operations("server")
            server.changes("tools")
            await stream.next()
        await until(lambda: not relay.relay._streams._open)
    assert relay.operations("server") == [recorded]
    assert (recorded.method, recorded.error_type) == (LISTEN, None)
    assert (recorded.workspace_id, recorded.token_id) == ("team", "alice")
    assert 0 < recorded.duration_ms <= took
    assert [*relay.starts, *relay.ends] == []


async def test_no_secret_of_a_subscriber_is_in_the_journal(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS),
    ):
        pass
    written = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*") if path.is_file())
    assert LISTEN.encode() in written
    assert SECRETS["alice"].encode() not in written
