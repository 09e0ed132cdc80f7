"""Sessions of legacy clients: what they hold, whose they are, and that they outlive the relay that began them."""

from pathlib import Path
from typing import Any

import pytest

from gateway.mcp.jsonrpc import EMPTY_OBJECT
from gateway.mcp.jsonrpc import raw as as_raw
from gateway.relay.registry import Principal
from gateway.relay.sessions import IDLE_S, LIFETIME_S, MAX_SESSIONS, LegacySession, Sessions
from gateway.relay.signing_key import KeyFileError, load_key, new_key
from tests.http1.raw import modern as modern_server
from tests.http1.raw import raw
from tests.relay.clients import CAN_ALL, connected, until
from tests.relay.rig import PATH, SECRETS, Rig, bearer, configuration, legacy, legacy_call, member, modern, rig

ALICE = Principal("team", "alice", None, None, "")
BOT = Principal("team", "bot", None, None, "")
PARAMS = {"capabilities": as_raw(CAN_ALL), "clientInfo": as_raw({"name": "cursor", "version": "3"})}
CHANGED = "notifications/tools/list_changed"
INITIALIZE = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "cursor", "version": "3"}}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def begin(relay: Rig) -> str:
    response = await relay.post(legacy("initialize", INITIALIZE))
    return response.headers["mcp-session-id"]


async def test_initialize_gives_an_id_that_is_visible_ascii_and_its_client_is_recorded_on_calls(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        session = await begin(relay)
        other = await begin(relay)
        assert (await relay.post(legacy_call(), mcp_session_id=session)).status_code == 200

    assert all("!" <= character <= "~" for character in session)
    assert session != other
    assert (relay.end.client_name, relay.end.client_version) == ("cursor", "3")
    assert relay.end.session_id
    assert relay.end.session_id not in session
    assert relay.starts[0].session_id == relay.end.session_id


async def test_a_request_without_a_session_is_served_as_ever(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        await begin(relay)
        assert (await relay.post(legacy_call())).json()["result"]["isError"] is False
    assert (relay.end.client_name, relay.end.session_id) == (None, None)


async def test_without_the_version_header_a_session_speaks_what_it_negotiated(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        session = await begin(relay)
        headers, body = legacy_call()
        del headers["mcp-protocol-version"]
        await relay.post((headers, body), mcp_session_id=session)
    assert relay.end.protocol_version == "2025-06-18"


@pytest.mark.parametrize("message", [legacy("ping"), legacy_call(), legacy("notifications/initialized")])
@pytest.mark.parametrize("session", ["unknown", "cs1.e30.e30", "\xff", ""])
async def test_an_unknown_session_is_404(tmp_path: Path, message: Any, session: str) -> None:
    async with rig(tmp_path) as relay:
        response = await relay.post(message, mcp_session_id=session)
        assert response.status_code == 404
    assert relay.recorded == []
    assert relay.rejected == {"unknown_session": 1}


async def test_the_session_of_another_token_is_404(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay:
        session = await begin(relay)
        assert (await relay.post(legacy("ping"), mcp_session_id=session)).status_code == 200
        assert (await relay.post(legacy("ping"), token="bot", mcp_session_id=session)).status_code == 404
        there = await relay.post(legacy("ping"), token="stranger", path="/ws/other", mcp_session_id=session)
        assert there.status_code == 404


async def test_a_session_that_was_deleted_is_not_known_any_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay:
        session = await begin(relay)
        headers = {**bearer("alice"), "mcp-session-id": session}
        ended = await relay.http.delete(PATH, headers=headers)
        assert (ended.status_code, ended.content) == (204, b"")
        assert (await relay.post(legacy("ping"), mcp_session_id=session)).status_code == 404
        assert (await relay.http.delete(PATH, headers=headers)).status_code == 404


async def test_modern_requests_neither_get_nor_heed_a_session(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay:
        response = await relay.post(modern("tools/list"), mcp_session_id="whatever")
        assert response.status_code == 200
        assert "mcp-session-id" not in response.headers


async def test_where_sessions_are_off_nobody_gets_one_and_an_id_counts_for_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path, requests={"sessions": False}) as relay:
        response = await relay.post(legacy("initialize", INITIALIZE))
        assert "mcp-session-id" not in response.headers
        assert (await relay.post(legacy("ping"), mcp_session_id="old")).status_code == 200
        got = await relay.http.get(PATH, headers={**bearer("alice"), "mcp-session-id": "old"})
        assert (got.status_code, got.headers["allow"]) == (405, "POST")


# -- beside HTTP


def test_a_relay_with_the_same_key_takes_up_a_session_that_it_has_never_seen() -> None:
    key, clock = new_key(), Clock()
    begun = Sessions(key, clock).open(ALICE, PARAMS, "2025-06-18")
    after = Sessions(key, clock).find(ALICE, begun.header)

    assert after is not None
    assert (after.id, after.client, after.revision, after.capabilities) == (
        begun.id,
        begun.client,
        "2025-06-18",
        begun.capabilities,
    )
    assert Sessions(new_key(), clock).find(ALICE, begun.header) is None
    assert Sessions(key, clock).find(BOT, begun.header) is None


def test_no_changed_id_is_a_session() -> None:
    sessions = Sessions(new_key())
    header = sessions.open(ALICE, PARAMS, "2025-06-18").header
    for place in range(4, len(header), 7):
        changed = header[:place] + bytes([header[place] ^ 1]) + header[place + 1 :]
        assert sessions.find(ALICE, changed) is None


def test_an_id_is_good_for_its_lifetime_only() -> None:
    key, clock = new_key(), Clock()
    header = Sessions(key, clock).open(ALICE, PARAMS, "2025-06-18").header
    clock.now += LIFETIME_S - 1
    assert Sessions(key, clock).find(ALICE, header) is not None
    clock.now += 2
    assert Sessions(key, clock).find(ALICE, header) is None


def test_so_many_sessions_of_one_token_are_kept_the_last_used_ones_and_none_of_another_goes() -> None:
    sessions = Sessions(new_key())
    others = sessions.open(BOT, PARAMS, "2025-06-18")
    first = sessions.open(ALICE, PARAMS, "2025-06-18")
    second = sessions.open(ALICE, PARAMS, "2025-06-18")
    assert sessions.find(ALICE, first.header) is first
    ended: list[LegacySession] = []
    second.at_end(lambda: ended.append(second))
    for _ in range(MAX_SESSIONS - 1):
        sessions.open(ALICE, PARAMS, "2025-06-18")

    kept = set(sessions)
    assert len(kept) == MAX_SESSIONS + 1
    assert {first, others} <= kept
    assert second not in kept
    assert ended == [second]
    again = sessions.find(ALICE, second.header)
    assert again is not None
    assert again is not second


def test_what_is_not_used_is_forgotten_unless_its_client_has_a_stream_open() -> None:
    clock = Clock()
    sessions = Sessions(new_key(), clock)
    idle, busy = (sessions.open(ALICE, PARAMS, "2025-06-18") for _ in range(2))
    told: list[LegacySession] = []
    idle.at_end(lambda: told.append(idle))
    busy.stream = object()
    clock.now += IDLE_S
    sessions.sweep()

    assert list(sessions) == [busy]
    assert told == [idle]


def test_capabilities_without_measure_make_no_id_without_measure() -> None:
    params = {"capabilities": as_raw({"elicitation": {"form": {"x": "y" * 100_000}}})}
    session = Sessions(new_key()).open(ALICE, params, "2025-06-18")
    assert len(session.header) < 1000
    assert session.capabilities == EMPTY_OBJECT


def test_the_key_is_kept_readable_by_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "relay.key"
    key = load_key(path)
    assert (load_key(path), len(key), path.stat().st_mode & 0o777) == (key, 32, 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_that_is_none_is_said_to_be_one_to_delete(tmp_path: Path) -> None:
    (tmp_path / "relay.key").write_bytes(b"short")
    with pytest.raises(KeyFileError, match="delete the file"):
        load_key(tmp_path / "relay.key")
    with pytest.raises(KeyFileError, match="cannot be read or written"):
        load_key(tmp_path / "relay.key" / "below-a-file")


# -- the session's own stream


def sessions_of(relay: Rig) -> list[LegacySession]:
    return list(relay.relay._sessions)


async def test_what_a_session_is_told_comes_on_its_stream_what_was_told_before_included(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay, connected(relay) as client:
        (session,) = sessions_of(relay)
        session.queue.put(CHANGED, {})
        async with client.listen() as stream:
            assert stream.response.status_code == 200
            assert stream.response.headers["content-type"] == "text/event-stream"
            assert (await stream.next())["method"] == CHANGED
            session.queue.put(CHANGED, {"n": as_raw(2)})
            assert (await stream.next())["params"] == {"n": 2}
        await until(lambda: session.stream is None)


async def test_a_newer_stream_takes_the_place_of_the_older_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay, connected(relay) as client:
        (session,) = sessions_of(relay)
        async with client.listen() as older, client.listen() as newer:
            assert await older.next() is None
            session.queue.put(CHANGED, {})
            assert (await newer.next())["method"] == CHANGED


async def test_the_end_of_the_session_ends_its_stream(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay, connected(relay) as client:
        async with client.listen() as stream:
            assert (await client.http.delete(PATH, headers=client.headers)).status_code == 204
            assert await stream.next() is None
        assert SECRETS["alice"] not in client.session


async def test_a_stop_ends_streams(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay, connected(relay) as client, client.listen() as stream:
        relay.relay._sessions.close()
        assert await stream.next() is None


async def test_the_stream_of_a_token_that_is_removed_ends(tmp_path: Path) -> None:
    async with (
        raw(modern_server()) as server,
        rig(tmp_path, {"files": server}) as relay,
        connected(relay) as client,
        client.listen() as stream,
    ):
        relay.relay.apply(configuration({"files": server}, workspace={"tokens": [member("bot")]}))
        assert await stream.next() is None
        assert (await client.post("ping")).status_code == 401


def test_the_session_of_a_token_that_has_expired_ends() -> None:
    clock = Clock()
    sessions = Sessions(new_key(), clock)
    session = sessions.open(ALICE._replace(expires_at=clock.now + 60), PARAMS, "2025-06-18")
    session.stream = object()
    clock.now += 61
    sessions.sweep()
    assert list(sessions) == []
    assert session.stream is None
