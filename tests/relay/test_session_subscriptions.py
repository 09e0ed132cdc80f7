"""What a legacy client's session is notified of: lists that change, and resources that it subscribed to."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.mcp.subscriptions import MAX_RESOURCES
from gateway.relay.notification_stream import MAX_QUEUED
from gateway.relay.relay_app import Tuning
from gateway.relay.sessions import LegacySession
from tests.relay.clients import LegacyClient, connected, until
from tests.relay.notifying_server import CAN_CHANGE, modern_client, notifying_server, resource_filter, servers, subject
from tests.relay.offering import ERAS
from tests.relay.rig import PATH, Rig, configuration, member, rig

SUBSCRIBE, UNSUBSCRIBE = "resources/subscribe", "resources/unsubscribe"
A, B, C = "file:///a", "file:///b", "file:///c"


async def subscribe(client: LegacyClient, uri: str) -> None:
    assert (await client.post(SUBSCRIBE, {"uri": uri})).json()["result"] == {}


async def refused(client: LegacyClient, params: Any, method: str = SUBSCRIBE) -> Any:
    """The error of an answer that is one, as a legacy client gets it."""
    response = await client.post(method, params)
    assert response.status_code == 200
    return response.json()["error"]


def session_of(relay: Rig) -> LegacySession:
    (session,) = relay.relay._sessions
    return session


def waiting(relay: Rig) -> int:
    """How many notifications wait for the only session's stream."""
    return len(session_of(relay).queue._messages)


# -- lists


@pytest.mark.parametrize("era", ERAS)
async def test_a_session_with_a_stream_gets_every_list_change_and_no_resource_update(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era) as one,
        notifying_server(era) as other,
        rig(tmp_path, servers(one, other)) as relay,
        connected(relay) as client,
        client.listen() as stream,
    ):
        await until(lambda: one.streams and other.streams)
        for server, kind in [(one, "tools"), (other, "prompts"), (one, "resources"), (other, "tools")]:
            server.changes(kind)
            frame = await stream.next()
            assert frame["method"] == f"notifications/{kind}/list_changed"
            assert "_meta" not in frame.get("params", {})


async def test_the_declared_capabilities_are_what_a_client_gets(tmp_path: Path) -> None:
    async with (
        notifying_server(capabilities={"tools": {"listChanged": True}, "resources": {"subscribe": True}}) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay, session=False) as client,
    ):
        declared = (await client.begin({}))["capabilities"]
        assert (declared["tools"], declared["resources"]) == ({"listChanged": True}, {"subscribe": True})


async def test_what_changes_before_the_stream_is_open_waits_for_it(tmp_path: Path) -> None:
    async with (
        notifying_server(resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as client,
    ):
        await subscribe(client, A)
        server.updates(A)
        server.changes("prompts")
        await until(lambda: waiting(relay) == 2)
        async with client.listen() as stream:
            assert [subject(await stream.next()) for _ in range(2)] == [A, "prompts"]


async def test_a_session_that_does_nothing_of_the_kind_costs_no_stream(tmp_path: Path) -> None:
    async with notifying_server() as server, rig(tmp_path, servers(server)) as relay, connected(relay) as client:
        await client.post("ping")
        assert not relay.relay._subscriptions.of("team").subscribers
        assert waiting(relay) == 0


async def test_a_reload_that_adds_or_removes_a_server_sends_list_changes(tmp_path: Path) -> None:
    async with (
        notifying_server() as one,
        notifying_server() as other,
        rig(tmp_path, servers(one)) as relay,
        connected(relay) as client,
        client.listen() as stream,
    ):
        await until(lambda: one.streams)
        relay.relay.apply(configuration(servers(one, other)))
        assert {subject(await stream.next()) for _ in range(3)} == {"tools", "prompts", "resources"}
        relay.relay.apply(configuration(servers(other)))
        assert {subject(await stream.next()) for _ in range(3)} == {"tools", "prompts", "resources"}


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_comes_back_may_have_changed_everything(tmp_path: Path, era: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = contextlib.AsyncExitStack()
        server = await first.enter_async_context(notifying_server(era, resources=[A]))
        relay = await stack.enter_async_context(rig(tmp_path, servers(server)))
        client = await stack.enter_async_context(connected(relay))
        stream = await stack.enter_async_context(client.listen())
        await subscribe(client, A)
        await first.aclose()

        await stack.enter_async_context(notifying_server(again=server))
        assert {subject(await stream.next()) for _ in range(4)} == {"tools", "prompts", "resources", A}
        await until(lambda: server.subscribed_uris == {A})


async def test_a_stream_opens_although_a_server_is_down(tmp_path: Path) -> None:
    async with notifying_server() as gone:
        pass
    async with (
        notifying_server(resources=[A]) as server,
        rig(tmp_path, servers(gone, server)) as relay,
        connected(relay) as client,
        client.listen() as stream,
    ):
        await until(lambda: server.streams)
        server.changes("prompts")
        assert subject(await stream.next()) == "prompts"


async def test_a_quiet_stream_is_kept_alive(tmp_path: Path) -> None:
    async with (
        notifying_server() as server,
        rig(tmp_path, servers(server), tuning=Tuning(keep_alive_s=0.01)) as relay,
        connected(relay) as client,
        client.listen() as stream,
    ):
        received = b""
        async with asyncio.timeout(60):
            async for chunk in stream.response.aiter_bytes():
                received += chunk
                if received.count(b":\r\n\r\n") >= 3:
                    break
    assert set(received.split(b"\r\n")) == {b":", b""}


# -- resources


@pytest.mark.parametrize("era", ERAS)
async def test_only_sessions_that_subscribed_to_a_resource_get_its_updates(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as one,
        connected(relay, token="bot") as other,
        connected(relay) as lists,
        one.listen() as first,
        other.listen() as second,
        lists.listen() as third,
    ):
        await subscribe(one, A)
        await subscribe(other, A)
        await subscribe(other, B)
        assert server.subscribed_uris == {A, B}
        server.updates(A)
        server.updates(B)
        server.changes("prompts")
        frame = await first.next()
        assert frame == {"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": A}}
        assert subject(await first.next()) == "prompts"
        assert [subject(await second.next()) for _ in range(3)] == [A, B, "prompts"]
        assert subject(await third.next()) == "prompts"


@pytest.mark.parametrize("era", ERAS)
async def test_after_unsubscribe_no_update_comes_and_the_last_one_unsubscribes_at_the_server(
    tmp_path: Path, era: str
) -> None:
    async with (
        notifying_server(era, resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as one,
        connected(relay) as other,
        one.listen() as stream,
    ):
        for client in (one, other):
            await subscribe(client, A)
        await subscribe(one, B)
        assert (await one.post(UNSUBSCRIBE, {"uri": A})).json()["result"] == {}
        assert server.subscribed_uris == {A, B}
        server.updates(A)
        server.updates(B)
        assert subject(await stream.next()) == B
        assert (await other.post(UNSUBSCRIBE, {"uri": A})).json()["result"] == {}
        await until(lambda: server.subscribed_uris == {B})
        assert (await other.post(UNSUBSCRIBE, {"uri": "file:///never"})).json()["result"] == {}
        assert server.subscribed_uris == {B}


async def test_clients_of_both_eras_share_a_subscription(tmp_path: Path) -> None:
    async with (
        notifying_server(resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as old,
        modern_client(relay) as new,
        old.listen() as stream,
    ):
        async with new.subscribed(**resource_filter(A)) as listening:
            await subscribe(old, A)
            await subscribe(old, B)
            server.updates(A)
            assert subject(await stream.next()) == subject(await listening.next()) == A
        server.updates(A)
        assert subject(await stream.next()) == A
        assert server.subscribed_uris == {A, B}


@pytest.mark.parametrize("ending", ["deleted", "token removed", "not used for long"])
async def test_the_end_of_a_session_ends_its_subscriptions(tmp_path: Path, ending: str) -> None:
    async with (
        notifying_server("legacy", resources=[A, B]) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay, token="bot") as other,
    ):
        await subscribe(other, B)
        async with connected(relay) as client:
            await subscribe(client, A)
            assert server.subscribed_uris == {A, B}
            if ending == "deleted":
                await client.http.delete(PATH, headers=client.headers)
            elif ending == "token removed":
                relay.relay.apply(configuration(servers(server), workspace={"tokens": [member("bot")]}))
            else:
                (idle,) = (one for one in relay.relay._sessions if one.owner.token_id == "alice")
                idle.used_at = 0.0
                relay.relay._sessions.sweep()
            await until(lambda: server.subscribed_uris == {B})
        assert len(relay.relay._subscriptions.of("team").subscribers) == 1


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_without_the_resource_rejects_the_subscription(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A], refuses={C}) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as client,
        client.listen() as stream,
    ):
        await subscribe(client, A)
        error = await refused(client, {"uri": C})
        if era == "legacy":  # it has its own words; a modern one leaves it out
            assert error == {"code": -32002, "message": "no such resource", "data": {"uri": C}}
        else:
            assert error["code"] == -32603
            assert error["data"] == {"error_type": "jsonrpc_error", "uri": C}
        server.updates(A)
        assert subject(await stream.next()) == A
        await until(lambda: server.subscribed_uris == {A})
        server.refuses.clear()
        await subscribe(client, C)
        assert server.subscribed_uris == {A, C}


async def test_a_resource_whose_server_offers_no_subscriptions_is_not_found(tmp_path: Path) -> None:
    cannot = {**CAN_CHANGE, "resources": {"listChanged": True}}
    async with (
        notifying_server(resources=[A], capabilities=cannot) as one,
        notifying_server(resources=[B]) as other,
        rig(tmp_path, servers(one, other)) as relay,
        connected(relay) as client,
    ):
        assert (await refused(client, {"uri": A}))["code"] == -32002
        await subscribe(client, B)
        assert other.subscribed_uris == {B}


@pytest.mark.parametrize("method", [SUBSCRIBE, UNSUBSCRIBE])
async def test_where_no_server_offers_subscriptions_there_is_no_such_method(tmp_path: Path, method: str) -> None:
    async with (
        notifying_server(resources=[A], capabilities={"tools": {}, "resources": {}}) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as client,
    ):
        assert (await refused(client, {"uri": A}, method))["code"] == -32601


async def test_without_a_session_there_are_no_subscriptions(tmp_path: Path) -> None:
    async with (
        notifying_server(resources=[A]) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay, session=False) as client,
    ):
        await client.post("tools/list")
        assert (await refused(client, {"uri": A}))["code"] == -32601
        assert server.subscribed_uris == set()


async def test_a_server_that_was_never_met_is_met_for_a_subscription(tmp_path: Path) -> None:
    async with (
        notifying_server(resources=[A], slow={"server/discover"}) as server,
        rig(tmp_path) as relay,
        connected(relay) as client,
    ):
        relay.relay.apply(configuration(servers(server)))
        subscribing = asyncio.create_task(client.post(SUBSCRIBE, {"uri": A}))
        await until(lambda: server.count("server/discover"))
        server.go.set()
        assert (await subscribing).json()["result"] == {}


@pytest.mark.parametrize("params", [None, {}, {"uri": 5}, {"uri": None}, {"uri": [A]}])
@pytest.mark.parametrize("method", [SUBSCRIBE, UNSUBSCRIBE])
async def test_what_is_no_uri_is_a_bad_request(tmp_path: Path, method: str, params: Any) -> None:
    async with notifying_server() as server, rig(tmp_path, servers(server)) as relay, connected(relay) as client:
        assert (await refused(client, params, method))["code"] == -32602


async def test_a_session_has_so_many_subscriptions_and_an_unsubscribe_makes_room(tmp_path: Path) -> None:
    async with (
        notifying_server("legacy", resources=[A, B, C]) as server,
        rig(tmp_path, servers(server), tuning=Tuning(max_resources=2)) as relay,
        connected(relay) as client,
        connected(relay) as other,
    ):
        await subscribe(client, A)
        await subscribe(client, B)
        error = await refused(client, {"uri": C})
        assert (error["code"], "2 subscriptions" in error["message"]) == (-32602, True)
        await subscribe(client, A)  # it does already
        await subscribe(other, C)
        await client.post(UNSUBSCRIBE, {"uri": A})
        await subscribe(client, C)
        assert server.subscribed_uris == {B, C}


async def test_a_server_that_is_down_refuses_what_is_its_own_and_nothing_else(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        gone = contextlib.AsyncExitStack()
        one = await gone.enter_async_context(notifying_server(resources=[A]))
        other = await stack.enter_async_context(notifying_server(resources=[B]))
        relay = await stack.enter_async_context(rig(tmp_path, servers(one, other)))
        first = await stack.enter_async_context(connected(relay))
        await subscribe(first, A)
        await gone.aclose()

        client = await stack.enter_async_context(connected(relay))
        error = await refused(client, {"uri": A})
        assert (error["code"], error["data"]["error_type"]) == (-32603, "upstream_unreachable")
        await subscribe(client, B)
        stream = await stack.enter_async_context(client.listen())
        other.updates(B)
        assert subject(await stream.next()) == B

        await stack.enter_async_context(notifying_server(again=one))
        await until(lambda: one.subscribed_uris == {A})  # the first one's still


async def test_subscriptions_of_one_session_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with (
        notifying_server("legacy", resources=[A, B], refuses={C}, slow={SUBSCRIBE}) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as client,
    ):
        asking = [asyncio.create_task(client.post(SUBSCRIBE, {"uri": uri})) for uri in (C, A, B)]
        await until(lambda: server.count(SUBSCRIBE))
        server.go.set()
        answers = [(await asked).json() for asked in asking]
        assert ["error" in answer for answer in answers] == [True, False, False]
        await until(lambda: server.subscribed_uris == {A, B})
        assert session_of(relay).subscribed_uris == {A, B}


# -- slow clients


@pytest.mark.parametrize("era", ERAS)
async def test_a_hundred_updates_that_wait_for_a_stream_arrive_as_one(tmp_path: Path, era: str) -> None:
    async with (
        notifying_server(era, resources=[A, B, C]) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as client,
        connected(relay) as watching,
        watching.listen() as stream,
    ):
        await subscribe(client, A)
        await subscribe(client, B)
        await subscribe(watching, C)
        for _ in range(100):
            server.updates(A)
        server.updates(B)
        server.updates(C)
        assert subject(await stream.next()) == C  # all of it has come
        async with client.listen() as late:
            assert [subject(await late.next()) for _ in range(2)] == [A, B]
            server.updates(B)
            assert subject(await late.next()) == B


async def test_an_update_of_every_subscribed_resource_fits_into_the_queue(tmp_path: Path) -> None:
    assert MAX_QUEUED >= MAX_RESOURCES + 3
    uris = [f"file:///{number}" for number in range(50)]
    async with (
        notifying_server(resources=uris) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as client,
        modern_client(relay) as other,
        other.subscribed(**resource_filter(*uris)),
    ):
        await asyncio.gather(*(client.post(SUBSCRIBE, {"uri": uri}) for uri in uris))
        for uri in uris:
            server.updates(uri)
        await until(lambda: waiting(relay) == len(uris))
        async with client.listen() as stream:
            assert [subject(await stream.next()) for _ in uris] == uris


# -- what is recorded


async def test_subscriptions_are_recorded_as_operations_and_what_went_wrong_with_them(tmp_path: Path) -> None:
    async with (
        notifying_server("legacy", resources=[A], refuses={C}) as server,
        rig(tmp_path, servers(server)) as relay,
        connected(relay) as client,
    ):
        began = time.perf_counter()
        await subscribe(client, A)
        took = (time.perf_counter() - began) * 1e3
        await refused(client, {"uri": C})
        await refused(client, {})
        await client.post(UNSUBSCRIBE, {"uri": A})
    recorded = [one for one in relay.operations("server") if one.method.startswith("resources/")]
    assert [(one.method, one.error_type) for one in recorded] == [
        (SUBSCRIBE, None),
        (SUBSCRIBE, "-32002"),
        (SUBSCRIBE, "-32602"),
        (UNSUBSCRIBE, None),
    ]
    assert {(one.workspace_id, one.token_id) for one in recorded} == {("team", "alice")}
    assert 0 < recorded[0].duration_ms <= took
    assert [*relay.starts, *relay.ends] == []
