"""`subscriptions/listen` (M24): what a modern client hears of a workspace's servers, and for how long."""

import asyncio
import contextlib
import json
import socket
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from starlette.types import Message

from gateway.config import Config
from gateway.journal import Writer
from gateway.process import serve
from gateway.relay import listening
from gateway.relay.app import Relay
from gateway.relay.http_protocol import HttpProtocol
from gateway.relay.upstream import hearing, http_listening
from tests.relay.changing import (
    CAN_CHANGE,
    EVERYTHING,
    LISTEN,
    SUBSCRIPTION,
    ModernClient,
    acknowledged,
    changing,
    follows,
    modern_client,
    servers,
    told,
)
from tests.relay.clients import until
from tests.relay.offering import ERAS
from tests.relay.rig import PATH, SECRETS, Rig, bearer, configuration, member, modern, rig
from tests.relay.upstream.processes import PRELUDE

TOOLS: Final[dict[str, Any]] = {"toolsListChanged": True}
A, B = "file:///a", "file:///b"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_listening, "MIN_PAUSE_S", 0.01)
    monkeypatch.setattr(hearing, "MIN_PAUSE_S", 0.01)


def reload(relay: Rig, of: dict[str, Any], **changes: Any) -> None:
    """The configuration is another one now."""
    relay.relay.apply(configuration(of, **changes))


# -- what is acknowledged


async def test_the_first_frame_keeps_to_what_a_server_tells_of_and_names_the_request_in_its_own_type(
    tmp_path: Path,
) -> None:
    only_tools = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"listChanged": False}}
    async with (
        changing(capabilities=only_tools, resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.listen(id_="listen-1", **EVERYTHING, **follows(A)) as stream,
    ):
        assert stream.response.status_code == 200
        assert stream.response.headers["content-type"] == "text/event-stream"
        assert stream.response.headers["x-accel-buffering"] == "no"
        assert await stream.next() == {
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"_meta": {SUBSCRIPTION: "listen-1"}, "notifications": TOOLS},
        }
        assert server.followed == set()


async def test_what_one_server_tells_of_is_kept_to_and_what_was_not_asked_for_is_not(tmp_path: Path) -> None:
    async with (
        changing(capabilities={"prompts": {"listChanged": True}}) as one,
        changing(capabilities={"tools": {"listChanged": True}}) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        client.listen(promptsListChanged=True, toolsListChanged=False) as stream,
    ):
        assert acknowledged(await stream.next()) == {"promptsListChanged": True}


async def test_servers_that_were_never_met_are_met_first(tmp_path: Path) -> None:
    async with (
        changing(slow={"server/discover"}) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
    ):
        headers, body = modern(LISTEN, {"notifications": TOOLS})
        listens = client.http.stream("POST", PATH, content=json.dumps(body), headers={**bearer("alice"), **headers})
        opening = asyncio.create_task(listens.__aenter__())
        await until(lambda: relay.relay._listening._open)
        server.go.set()
        await opening
        try:
            await until(lambda: server.streams)
        finally:
            await listens.__aexit__(None, None, None)


async def test_a_servers_stream_is_open_before_its_listener_is_acknowledged(tmp_path: Path) -> None:
    async with (
        changing(slow={LISTEN}) as server,
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
async def test_a_resource_that_its_server_does_not_follow_is_left_out_and_the_others_stand(
    tmp_path: Path, era: str
) -> None:
    async with (
        changing(era, resources=[A, B], refuses={A}) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.listen(**TOOLS, **follows(A, B)) as stream,
    ):
        assert acknowledged(await stream.next()) == {**TOOLS, **follows(B)}
        server.updates(A)
        server.updates(B)
        assert told(await stream.next()) == B
        await until(lambda: server.followed == {B})


async def test_a_server_that_refuses_a_filter_as_a_whole_still_tells_of_its_lists(tmp_path: Path) -> None:
    async with (
        changing(resources=[A, B], refuses={A}, refuses_whole=True) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(id_=1, **TOOLS, **follows(B)) as before,
        client.listen(id_=2, **TOOLS, **follows(A)) as stream,
    ):
        assert acknowledged(await stream.next()) == TOOLS
        server.changes("tools")
        assert told(await stream.next()) == told(await before.next()) == "tools"
        server.updates(B)
        assert told(await before.next()) == B


async def test_a_resource_of_a_server_that_follows_none_is_not_kept_to(tmp_path: Path) -> None:
    cannot = {**CAN_CHANGE, "resources": {"listChanged": True}}
    async with (
        changing(resources=[A], capabilities=cannot) as one,
        changing(resources=[B]) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        client.listen(**follows(A, B)) as stream,
    ):
        assert acknowledged(await stream.next()) == follows(B)
        assert (one.followed, other.followed) == (set(), {B})


async def test_a_resource_that_nobody_lists_is_followed_wherever_it_may_be(tmp_path: Path) -> None:
    async with (
        changing("modern", resources=[A]) as one,
        changing("legacy", refuses={"x:1"}) as other,
        changing("legacy") as third,
        rig(tmp_path, servers(one, other, third)) as relay,
        modern_client(relay) as client,
        client.hears(**follows("x:1")) as stream,
    ):
        assert (one.followed, other.followed, third.followed) == ({"x:1"}, set(), {"x:1"})
        third.updates("x:1")
        assert told(await stream.next()) == "x:1"


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_is_down_refuses_nobody_who_listens_to_another(tmp_path: Path, era: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gone = contextlib.AsyncExitStack()
        one = await gone.enter_async_context(changing(era, resources=[A, "file:///c"]))
        other = await stack.enter_async_context(changing(resources=[B]))
        relay = await stack.enter_async_context(rig(tmp_path, servers(one, other)))
        client = await stack.enter_async_context(modern_client(relay))
        await stack.enter_async_context(client.hears(id_=1, **follows(A)))
        await gone.aclose()

        await stack.enter_async_context(client.hears(id_=2, **follows(B)))
        late = await stack.enter_async_context(client.listen(id_=3, **follows("file:///c", B)))
        assert acknowledged(await late.next()) == follows(B)
        assert other.followed == {B}


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
    async with changing() as server, rig(tmp_path, servers(server)) as relay:
        response = await relay.post(modern(LISTEN, params, id_="x"))

        assert response.status_code == 400
        assert (response.json()["id"], response.json()["error"]["code"]) == ("x", -32602)
        assert relay.relay._listening._open == {}
    assert [(one.method, one.error_type) for one in relay.operations("server")] == [(LISTEN, "-32602")]


# -- what is told


@pytest.mark.parametrize("era", ERAS)
async def test_a_change_of_any_servers_list_is_told_once_and_stamped(tmp_path: Path, era: str) -> None:
    async with (
        changing(era) as one,
        changing(era) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        client.hears(id_="mine", **EVERYTHING) as stream,
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
async def test_each_stream_is_told_what_it_asked_for_only(tmp_path: Path, era: str) -> None:
    async with (
        changing(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(id_=1, **TOOLS, **follows(A)) as one,
        client.hears(id_=2, token="bot", **TOOLS, **follows(A, B)) as other,
        client.hears(id_=3, **TOOLS) as lists,
    ):
        assert server.followed == {A, B}
        server.updates(A)
        server.updates(B)
        server.changes("prompts")
        server.changes("tools")
        assert [told(await one.next()) for _ in range(2)] == [A, "tools"]
        frames = [await other.next() for _ in range(3)]
        assert [told(frame) for frame in frames] == [A, B, "tools"]
        assert frames[0]["params"] == {"uri": A, "_meta": {SUBSCRIPTION: 2}}
        assert told(await lists.next()) == "tools"


async def test_the_streams_of_one_workspace_are_not_told_of_anothers(tmp_path: Path) -> None:
    async with (
        changing() as server,
        changing() as theirs,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
    ):
        other = {"servers": {"x": {"url": theirs.url}}, "tokens": [member("stranger")]}
        whole = {"team": {"servers": servers(server), "tokens": [member("alice")]}, "other": other}
        relay.relay.apply(Config.model_validate({"workspaces": whole}))
        headers, body = modern(LISTEN, {"notifications": EVERYTHING})
        lines = {**bearer("stranger"), **headers}
        there = client.http.stream("POST", "/ws/other", content=json.dumps(body), headers=lines)
        async with client.hears(**EVERYTHING) as stream, there as response:
            assert response.status_code == 200
            await until(lambda: theirs.streams)
            theirs.changes("prompts")
            theirs.changes("resources")
            server.changes("tools")
            assert told(await stream.next()) == "tools"


@pytest.mark.parametrize("era", ERAS)
async def test_a_part_of_a_resource_is_told_to_who_follows_the_whole(tmp_path: Path, era: str) -> None:
    async with (
        changing(era, resources=["file:///dir", "file:///dir2"]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(id_=1, **follows("file:///dir")) as stream,
        client.hears(id_=2, **follows("file:///dir2")) as other,
    ):
        server.updates("file:///dir/a.txt", of="file:///dir")
        server.updates("file:///dir2")
        assert told(await stream.next()) == "file:///dir/a.txt"
        assert told(await other.next()) == "file:///dir2"


async def test_clients_that_come_at_once_are_all_heard(tmp_path: Path) -> None:
    uris = [f"file:///{number}" for number in range(12)]
    async with (
        changing("modern", resources=uris[:6]) as one,
        changing("legacy", resources=uris[6:]) as other,
        rig(tmp_path, servers(one, other)) as relay,
        modern_client(relay) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        listens = [client.hears(id_=uri, **follows(uri)) for uri in uris]
        streams = await asyncio.gather(*(stack.enter_async_context(one) for one in listens))

        assert (one.followed, other.followed) == (set(uris[:6]), set(uris[6:]))
        for uri, stream in zip(uris, streams, strict=True):
            (one if uri in one.followed else other).updates(uri)
            assert told(await stream.next()) == uri


STDIO: Final = """
answer(read(), {"supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}}})
COMPLETE = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
while True:
    request = read()
    method, meta = request["method"], {"io.modelcontextprotocol/subscriptionId": request.get("id")}
    if method == "subscriptions/listen":
        wanted = request["params"]["notifications"]
        kept = {**wanted, "resourceSubscriptions": [u for u in wanted.get("resourceSubscriptions", []) if u != "x:no"]}
        say(method="notifications/subscriptions/acknowledged", params={"_meta": meta, "notifications": kept})
        listening = request["id"]
    elif method == "tools/list":
        answer(request, {**COMPLETE, "tools": [{"name": name, "inputSchema": {"type": "object"}}
                                               for name in ("update", "change", "end", "cancel", "die")]})
    elif method == "tools/call":
        name = request["params"]["name"]
        if name == "die":
            sys.exit(0)
        elif name == "update":
            say(method="notifications/resources/updated", params={"_meta": {}, "uri": "x:1"})
        elif name == "change":
            say(method="notifications/tools/list_changed", params={})
        elif name == "end":
            say(id=listening, result={"resultType": "complete"})
        elif name == "cancel":
            say(method="notifications/cancelled", params={"requestId": listening})
        answer(request, {"resultType": "complete", "content": []})
    elif "id" in request:
        answer(request, {**COMPLETE, "resources": [], "resourceTemplates": []})
"""


def stdio(body: str = STDIO) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-I", "-S", "-c", PRELUDE + textwrap.dedent(body)]}


async def call(relay: Rig, tool: str) -> int:
    params = {"name": f"local__{tool}", "arguments": {}}
    return (await relay.post(modern("tools/call", params))).status_code


async def test_a_process_tells_of_its_changes_too_and_of_the_resources_that_it_follows(tmp_path: Path) -> None:
    async with (
        rig(tmp_path, {"local": stdio()}) as relay,
        modern_client(relay) as client,
        client.listen(id_=1, **TOOLS, **follows("x:1", "x:no")) as stream,
    ):
        assert acknowledged(await stream.next()) == {**TOOLS, **follows("x:1")}
        await call(relay, "update")
        assert told(await stream.next()) == "x:1"
        await call(relay, "change")
        frame = await stream.next()
        assert (told(frame), frame["params"]["_meta"]) == ("tools", {SUBSCRIPTION: 1})


@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_a_process_that_ends_its_subscription_is_listened_to_anew(tmp_path: Path, how: str) -> None:
    async with (
        rig(tmp_path, {"local": stdio()}) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS, **follows("x:1")) as stream,
    ):
        await call(relay, how)
        assert {told(await stream.next()) for _ in range(2)} == {"tools", "x:1"}  # it may have changed meanwhile


async def test_a_process_that_was_started_again_may_have_changed(tmp_path: Path) -> None:
    async with (
        rig(tmp_path, {"local": stdio()}) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS, **follows("x:1")) as stream,
    ):
        await call(relay, "die")
        heard = asyncio.create_task(stream.next())
        async with asyncio.timeout(8):
            while not heard.done():  # the next request that comes after the pause starts it
                await call(relay, "update")
                await asyncio.sleep(0.02)
        seen = {told(await heard)}
        while seen != {"tools", "x:1"}:
            seen.add(told(await stream.next()))


# -- servers that were away


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_comes_back_may_have_changed_everything(tmp_path: Path, era: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = contextlib.AsyncExitStack()
        server = await first.enter_async_context(changing(era, resources=[A]))
        relay = await stack.enter_async_context(rig(tmp_path, servers(server)))
        client = await stack.enter_async_context(modern_client(relay))
        stream = await stack.enter_async_context(client.hears(**EVERYTHING, **follows(A)))
        await first.aclose()
        await until(lambda: not server.streams)

        await stack.enter_async_context(changing(again=server))
        assert {told(await stream.next()) for _ in range(4)} == {"tools", "prompts", "resources", A}
        await until(lambda: server.followed == {A})
        server.updates(A)
        assert told(await stream.next()) == A


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("in_order", [False, True])
async def test_a_stream_that_broke_for_a_moment_may_have_missed_something(
    tmp_path: Path, era: str, *, in_order: bool
) -> None:
    async with (
        changing(era, resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS, **follows(A)) as stream,
    ):
        server.ends_streams(in_order=in_order and era == "modern")
        assert {told(await stream.next()) for _ in range(2)} == {"tools", A}


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_was_answered_for_by_its_proxy_for_a_time_is_heard_again(tmp_path: Path, era: str) -> None:
    async with (
        changing(era, resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS, **follows(A)) as stream,
    ):
        server.away = True
        server.ends_streams()
        await until(lambda: server.refused >= 2)
        server.away = False
        assert {told(await stream.next()) for _ in range(2)} == {"tools", A}
        server.changes("tools")
        assert told(await stream.next()) == "tools"


async def test_a_server_that_forgot_its_sessions_may_have_changed_everything(tmp_path: Path) -> None:
    async with (
        changing("legacy", resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS, **follows(A)) as stream,
    ):
        server.forgets()
        assert {told(await stream.next()) for _ in range(2)} == {"tools", A}
        await until(lambda: server.followed == {A})


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_comes_back_without_a_resource_still_tells_of_the_rest(tmp_path: Path, era: str) -> None:
    async with (
        changing(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS, **follows(A, B)) as stream,
    ):
        server.refuses.add(A)
        server.refuses_whole = True
        server.forgets()
        seen: set[str] = set()
        while "tools" not in seen:
            seen.add(told(await stream.next()))
        if era == "legacy":  # a modern one's refusal does not say of what
            await until(lambda: server.followed == {B})
        server.changes("tools")
        while told(await stream.next()) != "tools":
            pass


# -- another configuration


async def test_a_server_that_comes_or_goes_with_a_reload_changes_the_lists(tmp_path: Path) -> None:
    async with (
        changing() as one,
        changing() as other,
        rig(tmp_path, servers(one)) as relay,
        modern_client(relay) as client,
        client.hears(**EVERYTHING) as stream,
    ):
        reload(relay, servers(one, other))
        assert {told(await stream.next()) for _ in range(3)} == {"tools", "prompts", "resources"}
        await until(lambda: other.streams)  # it is met by the relay's probe, and heard from then on
        other.changes("prompts")
        assert told(await stream.next()) == "prompts"
        reload(relay, servers(one))
        assert {told(await stream.next()) for _ in range(3)} == {"tools", "prompts", "resources"}


async def test_a_reload_that_leaves_the_servers_as_they_are_is_not_told(tmp_path: Path) -> None:
    async with (
        changing() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**EVERYTHING) as stream,
    ):
        reload(relay, servers(server), requests={"max_bytes": 100_000})
        server.changes("prompts")
        assert told(await stream.next()) == "prompts"
        assert server.opened == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_resource_is_followed_at_the_server_that_has_it_after_a_reload(tmp_path: Path, era: str) -> None:
    async with (
        changing(era, resources=[A]) as before,
        changing(era, resources=[A]) as after,
        changing(era, resources=[B]) as kept,
        rig(tmp_path, servers(before, kept)) as relay,
        modern_client(relay) as client,
        client.hears(**follows(A, B)) as stream,
    ):
        reload(relay, servers(after, kept))
        assert told(await stream.next()) == A  # nobody knows what it was there; of the other one nothing is said
        assert after.followed == {A}
        after.updates(A)
        assert told(await stream.next()) == A
        kept.updates(B)
        assert told(await stream.next()) == B


# -- the end of a stream


async def test_a_stop_of_the_relay_ends_a_stream_with_its_result(tmp_path: Path) -> None:
    writer, stop = Writer(tmp_path / "journal", "relay"), asyncio.Event()
    try:
        async with changing() as server:
            relay = Relay(configuration(servers(server)), writer)
            async with asyncio.timeout(10), relay.running(stop=stop):
                sock = socket.create_server(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                serving = asyncio.create_task(serve(relay, sock, stop=stop, grace_seconds=30, http=HttpProtocol))
                async with (
                    httpx.AsyncClient(base_url=url, timeout=8, verify=False) as http,  # noqa: S501 - no TLS
                    ModernClient(http).hears(id_="mine", **TOOLS) as stream,
                ):
                    stop.set()
                    frame = await stream.next()
                    assert await stream.next() is None
                await serving
    finally:
        writer.close()
    assert (frame["id"], frame["result"]["resultType"]) == ("mine", "complete")
    assert frame["result"]["_meta"][SUBSCRIPTION] == "mine"
    assert frame["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "callscope"


@pytest.mark.parametrize(
    "left",
    [
        [member("bot")],
        [{**member("new secret"), "id": "alice"}, member("bot")],
        [member("alice", expires_at=datetime.now(UTC) - timedelta(hours=1)), member("bot")],
    ],
    ids=["removed", "another secret", "expired"],
)
async def test_a_stream_ends_with_its_token_and_no_other_does(tmp_path: Path, left: Any) -> None:
    async with (
        changing() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(id_=1, **TOOLS) as stream,
        client.hears(id_=2, token="bot", **TOOLS) as other,
    ):
        reload(relay, servers(server), workspace={"tokens": left})
        assert (await stream.next())["result"]["resultType"] == "complete"
        assert await stream.next() is None
        server.changes("tools")
        assert told(await other.next()) == "tools"


async def test_a_stream_ends_when_its_token_expires(tmp_path: Path) -> None:
    async with (
        changing() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS) as stream,
    ):
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        reload(relay, servers(server), workspace={"tokens": [member("alice", expires_at=soon)]})
        assert (await stream.next())["result"]["resultType"] == "complete"
        assert time.time() >= soon.timestamp()


async def test_a_workspace_that_goes_takes_its_streams_with_it(tmp_path: Path) -> None:
    async with (
        changing() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS) as stream,
    ):
        config = configuration({})
        relay.relay.apply(config.model_copy(update={"workspaces": {"other": config.workspaces["other"]}}))
        assert (await stream.next())["result"]["resultType"] == "complete"


@pytest.mark.parametrize("era", ERAS)
async def test_a_resource_is_followed_until_the_last_who_follows_it_has_gone(tmp_path: Path, era: str) -> None:
    async with (
        changing(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
    ):
        async with client.hears(id_=1, **follows(A)) as stays:
            async with client.hears(id_=2, **follows(A, B)):
                assert server.followed == {A, B}
            await until(lambda: server.followed == {A})
            server.updates(A)
            assert told(await stays.next()) == A
        await until(lambda: server.followed == set())
        assert relay.relay._changes._listeners == {}


async def test_a_token_has_so_many_streams_and_a_client_that_goes_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MAX_STREAMS", 2)
    async with changing() as server, rig(tmp_path, servers(server)) as relay, modern_client(relay) as client:
        async with client.hears(id_=1, **TOOLS):
            async with client.hears(id_=2, **TOOLS):
                refused = await relay.post(modern(LISTEN, {"notifications": TOOLS}, id_=3))
                assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32600)
                assert "2 streams" in refused.json()["error"]["message"]
                async with client.hears(id_=4, token="bot", **TOOLS):
                    pass
            await until(lambda: relay.relay._listening._open == {("team", "alice"): 1})
            async with client.hears(id_=5, **TOOLS):
                pass
        await until(lambda: not relay.relay._listening._open)
    assert [one.error_type for one in relay.operations("server")] == [None, None, "-32600", None, None]


async def test_a_quiet_stream_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.01)
    async with (
        changing() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.listen(**TOOLS) as stream,
    ):
        received = b""
        async with asyncio.timeout(5):
            async for chunk in stream.response.aiter_bytes():
                received += chunk
                if received.count(b":\r\n\r\n") >= 3:
                    break
    first, _, rest = received.partition(b"\r\n\r\n")
    assert b"acknowledged" in first
    assert set(rest.split(b"\r\n")) == {b":", b""}


async def test_a_client_that_reads_slowly_hears_of_a_hundred_changes_as_of_one(tmp_path: Path) -> None:
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    reads, leaves = asyncio.Event(), asyncio.Event()
    headers, body = modern(LISTEN, {"notifications": {**TOOLS, **follows(A, B)}})
    requests = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Message:
        if requests:
            return requests.pop()
        await leaves.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message.get("body"):
            sent.put_nowait(message["body"])
            if b"acknowledged" not in message["body"]:
                await reads.wait()

    lines = [(name.encode(), value.encode()) for name, value in {**bearer("alice"), **headers}.items()]
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": lines}
    async with changing(resources=[A, B]) as server, rig(tmp_path, servers(server)) as relay:
        serving = asyncio.ensure_future(relay.relay(scope, receive, send))
        assert b"acknowledged" in await sent.get()
        server.updates(B)
        assert B.encode() in await sent.get()  # it is not taken, and the stream waits
        noted = _noted(relay)
        for _ in range(100):
            server.updates(A)
        server.updates(B)
        await until(lambda: len(noted()) == 2)
        for _ in range(100):
            server.updates(A)
        server.changes("tools")
        await until(lambda: len(noted()) == 3)
        reads.set()
        assert [_uri(await sent.get()) for _ in range(3)] == [A, B, None]
        leaves.set()
        await serving
    assert sent.empty()


def _noted(relay: Rig) -> Any:
    """What the only stream has to be told and was not yet."""
    (stream,) = relay.relay._changes._listeners["team"]
    assert isinstance(stream, listening.Stream)
    return lambda: stream._noted


def _uri(body: bytes) -> Any:
    return json.loads(body.partition(b"data: ")[2])["params"].get("uri")


# -- what is recorded


async def test_the_time_until_it_is_acknowledged_is_recorded_not_how_long_it_goes_on(tmp_path: Path) -> None:
    async with changing() as server, rig(tmp_path, servers(server)) as relay, modern_client(relay) as client:
        began = time.perf_counter()
        async with client.hears(**TOOLS) as stream:
            took = (time.perf_counter() - began) * 1e3
            (recorded,) = relay.operations("server")
            server.changes("tools")
            await stream.next()
        await until(lambda: not relay.relay._listening._open)
    assert relay.operations("server") == [recorded]
    assert (recorded.method, recorded.error_type) == (LISTEN, None)
    assert (recorded.workspace_id, recorded.token_id) == ("team", "alice")
    assert 0 < recorded.duration_ms <= took
    assert [*relay.starts, *relay.ends] == []


async def test_no_secret_of_a_listeners_is_in_the_journal(tmp_path: Path) -> None:
    async with (
        changing() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.hears(**TOOLS),
    ):
        pass
    written = b"".join(path.read_bytes() for path in (tmp_path / "journal").rglob("*") if path.is_file())
    assert LISTEN.encode() in written
    assert SECRETS["alice"].encode() not in written
