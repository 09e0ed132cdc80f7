"""`subscriptions/listen`: what is told of servers that went and came back, and of another configuration."""

import asyncio
import contextlib
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest

from tests.relay.changing import (
    EVERYTHING,
    SUBSCRIPTION,
    acknowledged,
    changing,
    follows,
    modern_client,
    reload,
    servers,
    told,
)
from tests.relay.clients import until
from tests.relay.offering import ERAS
from tests.relay.rig import Rig, modern, rig
from tests.upstream.stdio_rig import PRELUDE

TOOLS: Final[dict[str, Any]] = {"toolsListChanged": True}
A, B = "file:///a", "file:///b"


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
