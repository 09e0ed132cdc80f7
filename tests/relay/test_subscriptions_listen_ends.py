"""`subscriptions/listen`: when a stream ends and its subscriptions with it, and clients that are slow or many."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from starlette.types import Message

from gateway.http1.server import HttpProtocol
from gateway.journal import Writer
from gateway.process import serve
from gateway.relay.relay_app import Relay, Tuning
from tests.relay.clients import until
from tests.relay.notifying_server import (
    LISTEN,
    SUBSCRIPTION,
    ModernClient,
    modern_client,
    notifying_server,
    reload,
    resource_filter,
    servers,
    subject,
)
from tests.relay.offering import ERAS
from tests.relay.rig import PATH, Rig, bearer, configuration, member, modern, rig

TOOLS: Final[dict[str, Any]] = {"toolsListChanged": True}
A, B = "file:///a", "file:///b"


# -- the end of a stream


async def test_a_stop_of_the_relay_ends_a_stream_with_its_result(tmp_path: Path) -> None:
    writer, stop = Writer(tmp_path / "journal", "relay"), asyncio.Event()
    try:
        async with notifying_server() as server:
            relay = Relay(configuration(servers(server)), writer)
            async with asyncio.timeout(60), relay.running(stop=stop):
                sock = socket.create_server(("127.0.0.1", 0))
                url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                serving = asyncio.create_task(serve(relay, sock, stop=stop, grace_seconds=30, http=HttpProtocol))
                async with (
                    httpx.AsyncClient(base_url=url, timeout=60, verify=False) as http,  # noqa: S501 - no TLS
                    ModernClient(http).subscribed(id_="mine", **TOOLS) as stream,
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
        notifying_server() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(id_=1, **TOOLS) as stream,
        client.subscribed(id_=2, token="bot", **TOOLS) as other,
    ):
        reload(relay, servers(server), workspace={"tokens": left})
        assert (await stream.next())["result"]["resultType"] == "complete"
        assert await stream.next() is None
        server.changes("tools")
        assert subject(await other.next()) == "tools"


async def test_a_stream_ends_when_its_token_expires(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS) as stream,
    ):
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        reload(relay, servers(server), workspace={"tokens": [member("alice", expires_at=soon)]})
        assert (await stream.next())["result"]["resultType"] == "complete"
        assert time.time() >= soon.timestamp()


async def test_a_workspace_that_goes_takes_its_streams_with_it(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
        client.subscribed(**TOOLS) as stream,
    ):
        config = configuration({})
        relay.relay.apply(config.model_copy(update={"workspaces": {"other": config.workspaces["other"]}}))
        assert (await stream.next())["result"]["resultType"] == "complete"


@pytest.mark.parametrize("era", ERAS)
async def test_a_subscription_lasts_until_its_last_subscriber_is_gone(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        modern_client(relay) as client,
    ):
        async with client.subscribed(id_=1, **resource_filter(A)) as stays:
            async with client.subscribed(id_=2, **resource_filter(A, B)):
                assert server.subscribed_uris == {A, B}
            await until(lambda: server.subscribed_uris == {A})
            server.updates(A)
            assert subject(await stays.next()) == A
        await until(lambda: server.subscribed_uris == set())
        assert not relay.relay._subscriptions.of("team").subscribers


async def test_a_token_has_so_many_streams_and_a_client_that_goes_makes_room(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        rig(tmp_path, servers(server), tuning=Tuning(max_streams=2)) as relay,
        modern_client(relay) as client,
    ):
        async with client.subscribed(id_=1, **TOOLS):
            async with client.subscribed(id_=2, **TOOLS):
                refused = await relay.post(modern(LISTEN, {"notifications": TOOLS}, id_=3))
                assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32600)
                assert "2 subscription streams" in refused.json()["error"]["message"]
                async with client.subscribed(id_=4, token="bot", **TOOLS):
                    pass
            await until(lambda: relay.relay._streams._open == {("team", "alice"): 1})
            async with client.subscribed(id_=5, **TOOLS):
                pass
        await until(lambda: not relay.relay._streams._open)
    assert [one.error_type for one in relay.operations("server")] == [None, None, "-32600", None, None]


async def test_a_quiet_stream_is_kept_alive(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        rig(tmp_path, servers(server), tuning=Tuning(keep_alive_s=0.01)) as relay,
        modern_client(relay) as client,
        client.listen(**TOOLS) as stream,
    ):
        received = b""
        async with asyncio.timeout(60):
            async for chunk in stream.response.aiter_bytes():
                received += chunk
                if received.count(b":\r\n\r\n") >= 3:
                    break
    first, _, rest = received.partition(b"\r\n\r\n")
    assert b"acknowledged" in first
    assert set(rest.split(b"\r\n")) == {b":", b""}


async def test_a_slow_client_gets_a_hundred_updates_as_one(tmp_path: Path) -> None:
    sent: asyncio.Queue[bytes] = asyncio.Queue()
    reads, leaves = asyncio.Event(), asyncio.Event()
    headers, body = modern(LISTEN, {"notifications": {**TOOLS, **resource_filter(A, B)}})
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
    async with notifying_server(resources=[A, B]) as server, rig(tmp_path, servers(server)) as relay:
        serving = asyncio.ensure_future(relay.relay(scope, receive, send))
        assert b"acknowledged" in await sent.get()
        server.updates(B)
        assert B.encode() in await sent.get()  # it is not taken, and the stream waits
        waiting = _waiting(relay)
        for _ in range(100):
            server.updates(A)
        server.updates(B)
        await until(lambda: waiting() == 2)
        for _ in range(100):
            server.updates(A)
        server.changes("tools")
        await until(lambda: waiting() == 3)
        reads.set()
        assert [_uri(await sent.get()) for _ in range(3)] == [A, B, None]
        leaves.set()
        await serving
    assert sent.empty()


def _waiting(relay: Rig) -> Callable[[], int]:
    """How many notifications wait for the only stream."""
    (queue,) = relay.relay._subscriptions.of("team").subscribers
    return lambda: len(queue._messages)


def _uri(body: bytes) -> Any:
    return json.loads(body.partition(b"data: ")[2])["params"].get("uri")
