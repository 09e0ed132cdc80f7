"""`subscriptions/listen`: servers that go away and come back, and reloads of the configuration."""

import asyncio
import contextlib
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

import pytest

from tests.relay.clients import until
from tests.relay.notifying_server import (
    EVERYTHING,
    SUBSCRIPTION,
    acknowledged,
    modern_client,
    notifying_server,
    reload,
    resource_filter,
    servers,
    subject,
)
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


async def test_a_server_over_stdio_sends_list_changes_and_resource_updates(tmp_path: Path) -> None:
    async with (
        rig(tmp_path, {"local": stdio()}) as relay,
        modern_client(relay) as client,
        client.listen(id_=1, **TOOLS, **resource_filter("x:1", "x:no")) as stream,
    ):
        assert acknowledged(await stream.next()) == {**TOOLS, **resource_filter("x:1")}
        await call(relay, "update")
        assert subject(await stream.next()) == "x:1"
        await call(relay, "change")
        frame = await stream.next()
        assert (subject(frame), frame["params"]["_meta"]) == ("tools", {SUBSCRIPTION: 1})


@pytest.mark.parametrize("how", ["end", "cancel"])
async def test_when_a_server_over_stdio_ends_the_subscription_it_is_opened_again(tmp_path: Path, how: str) -> None:
    async with (
        rig(tmp_path, {"local": stdio()}) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS, **resource_filter("x:1")) as stream,
    ):
        await call(relay, how)
        assert {subject(await stream.next()) for _ in range(2)} == {"tools", "x:1"}  # it may have changed meanwhile


async def test_a_process_that_was_started_again_may_have_changed(tmp_path: Path) -> None:
    async with (
        rig(tmp_path, {"local": stdio()}) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS, **resource_filter("x:1")) as stream,
    ):
        await call(relay, "die")
        notified = asyncio.create_task(stream.next())
        async with asyncio.timeout(60):
            while not notified.done():  # the next request that comes after the pause starts it
                await call(relay, "update")
                await asyncio.sleep(0.02)
        seen = {subject(await notified)}
        while seen != {"tools", "x:1"}:
            seen.add(subject(await stream.next()))


# -- servers that were away


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_comes_back_may_have_changed_everything(tmp_path: Path, era: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = contextlib.AsyncExitStack()
        server = await first.enter_async_context(notifying_server(era, resources=[A]))
        relay = await stack.enter_async_context(rig(tmp_path, servers(server)))
        client = await stack.enter_async_context(modern_client(relay))
        stream = await stack.enter_async_context(client.subscribed(**EVERYTHING, **resource_filter(A)))
        await first.aclose()
        await until(lambda: not server.streams)

        await stack.enter_async_context(notifying_server(again=server))
        assert {subject(await stream.next()) for _ in range(4)} == {"tools", "prompts", "resources", A}
        await until(lambda: server.subscribed_uris == {A})
        server.updates(A)
        assert subject(await stream.next()) == A


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("in_order", [False, True])
async def test_a_stream_that_broke_for_a_moment_may_have_missed_something(
    tmp_path: Path, era: str, *, in_order: bool
) -> None:
    async with (
        notifying_server(era, resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS, **resource_filter(A)) as stream,
    ):
        server.ends_streams(in_order=in_order and era == "modern")
        assert {subject(await stream.next()) for _ in range(2)} == {"tools", A}


@pytest.mark.parametrize("era", ERAS)
async def test_when_a_proxy_answered_for_the_server_for_a_time_the_stream_is_opened_again(
    tmp_path: Path, era: str
) -> None:
    async with (
        notifying_server(era, resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS, **resource_filter(A)) as stream,
    ):
        server.away = True
        server.ends_streams()
        await until(lambda: server.refused >= 2)
        server.away = False
        assert {subject(await stream.next()) for _ in range(2)} == {"tools", A}
        server.changes("tools")
        assert subject(await stream.next()) == "tools"


async def test_a_server_that_forgot_its_sessions_may_have_changed_everything(tmp_path: Path) -> None:
    async with (
        notifying_server("legacy", resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS, **resource_filter(A)) as stream,
    ):
        server.forgets()
        assert {subject(await stream.next()) for _ in range(2)} == {"tools", A}
        await until(lambda: server.subscribed_uris == {A})


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_comes_back_without_a_resource_still_sends_the_rest(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS, **resource_filter(A, B)) as stream,
    ):
        server.refuses.add(A)
        server.refuses_whole = True
        server.forgets()
        seen: set[str] = set()
        while "tools" not in seen:
            seen.add(subject(await stream.next()))
        if era == "legacy":  # a modern one's refusal does not say of what
            await until(lambda: server.subscribed_uris == {B})
        server.changes("tools")
        while subject(await stream.next()) != "tools":
            pass


# -- another configuration


async def test_a_server_that_comes_or_goes_with_a_reload_changes_the_lists(tmp_path: Path) -> None:
    async with (
        notifying_server() as one,
        notifying_server() as other,
        rig(tmp_path, servers(one)) as relay,
        modern_client(relay) as client,
        client.subscribed(**EVERYTHING) as stream,
    ):
        reload(relay, servers(one, other))
        assert {subject(await stream.next()) for _ in range(3)} == {"tools", "prompts", "resources"}
        await until(lambda: other.streams)  # it is met by the relay's probe, and notifies from then on
        other.changes("prompts")
        assert subject(await stream.next()) == "prompts"
        reload(relay, servers(one))
        assert {subject(await stream.next()) for _ in range(3)} == {"tools", "prompts", "resources"}


async def test_a_reload_that_leaves_the_servers_as_they_are_sends_nothing(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**EVERYTHING) as stream,
    ):
        reload(relay, servers(server), requests={"max_bytes": 100_000})
        server.changes("prompts")
        assert subject(await stream.next()) == "prompts"
        assert server.opened == 1


@pytest.mark.parametrize("era", ERAS)
async def test_after_a_reload_the_subscription_is_at_the_server_that_has_the_resource(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A]) as before,
        notifying_server(era, resources=[A]) as after,
        notifying_server(era, resources=[B]) as kept,
        rig(tmp_path, servers(before, kept)) as relay,
        modern_client(relay) as client,
        client.subscribed(**resource_filter(A, B)) as stream,
    ):
        reload(relay, servers(after, kept))
        assert subject(await stream.next()) == A  # nobody knows what it was there; of the other one nothing is said
        assert after.subscribed_uris == {A}
        after.updates(A)
        assert subject(await stream.next()) == A
        kept.updates(B)
        assert subject(await stream.next()) == B
