"""Who may read the live stream, for how long, and with which filters: it holds while a stream is open, too."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from gateway.analytics.bearer import hmac_key
from gateway.calls import UNKNOWN
from gateway.config import Config
from gateway.journal import Writer
from gateway.observer.live_stream import LiveSettings
from tests.observer.events import until
from tests.observer.live_client import CONFIG, JWT, PATH, Client, authorization, call, serving

ATTENTIVE = LiveSettings(poll=0.01, keep_alive=0.02)


def without_engineering() -> Config:
    return CONFIG.model_copy(update={"workspaces": {"sales": CONFIG.workspaces["sales"]}})


def with_another_secret() -> Config:
    return Config.model_validate({"api": {"jwt": {"secret": "another secret, which is long enough too"}}}).model_copy(
        update={"workspaces": CONFIG.workspaces}
    )


# -- while it is open


async def test_a_stream_ends_when_its_bearer_does(root: Path, writer: Writer) -> None:
    """At the time until which other requests take the bearer: clocks may differ by ten seconds."""
    async with serving(root) as server, server.connect() as client:
        await client.ready()
        server.seconds_on = 605
        writer.append(call(0))
        assert await client.calls(1) == ["c0"]

        server.seconds_on = 611
        assert await client.block() is None

        writer.append(call(1))
        await until(lambda: server.live.streams == 0)


async def test_a_bearer_without_an_end_has_none(root: Path, writer: Writer) -> None:
    endless = jwt.encode({"workspaces": ["engineering"]}, hmac_key(JWT.secret or ""), "HS256")
    async with serving(root) as server:
        server.http.headers["authorization"] = f"Bearer {endless}"
        async with server.http.stream("GET", PATH) as response:
            client = Client(response)
            await client.ready()
            server.seconds_on = 10**9
            writer.append(call(0))
            assert await client.calls(1) == ["c0"]


@pytest.mark.parametrize("change", [without_engineering, with_another_secret])
async def test_a_stream_ends_when_the_configuration_lets_its_bearer_in_no_more(
    root: Path, change: Callable[[], Config]
) -> None:
    async with asyncio.timeout(60), serving(root, ATTENTIVE) as server, server.connect() as client:
        await client.ready()
        assert (await client.block()) is not None, "a comment: it is looked at again, and is good"
        server.config = change()
        while (block := await client.block()) is not None:
            assert block.comment == "keep-alive"


async def test_a_busy_stream_is_looked_at_as_often(root: Path, writer: Writer) -> None:
    settings = LiveSettings(poll=0.001, keep_alive=0.05)
    async with asyncio.timeout(60), serving(root, settings) as server, server.connect() as client:
        await client.ready()
        server.config = without_engineering()
        number = 0
        writer.append(call(number))
        while (block := await client.block()) is not None:
            assert block.comment is None
            if block.event:
                number += 1
                writer.append(call(number))
    assert number > 0


# -- filters


@pytest.mark.parametrize("token", [None, "alice"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("query", "parameter", "allowed"),
    [
        ("server=nope", "server", ["github", "jira"]),
        ("server=github&server=nope", "server", ["github", "jira"]),
        ("server=%00", "server", ["github", "jira"]),
        ("token=nobody", "token", ["alice", "bob"]),
        ("token=_unknown", "token", ["alice", "bob"]),
        ("tool=%00", "tool", []),
    ],
)
async def test_a_name_that_never_was_is_400_and_not_silence(
    root: Path, token: str | None, method: str, query: str, parameter: str, allowed: list[str]
) -> None:
    async with serving(root) as server:
        response = await server.http.request(method, f"{PATH}?{query}", headers=authorization(token))
        assert server.live.streams == 0

    assert response.status_code == 400
    if method == "GET":
        expected = ["alice"] if (token, parameter) == ("alice", "token") else allowed
        assert (response.json()["parameter"], response.json()["allowed"]) == (parameter, expected)


async def test_a_tool_that_nobody_has_is_400_once_the_catalog_is_known(root: Path) -> None:
    async with serving(root, catalog=[("github", "merge")]) as server:
        unknown = await server.http.get(f"{PATH}?tool=mergee")
        known = await server.http.head(f"{PATH}?tool=merge&tool={UNKNOWN}&server={UNKNOWN}")

    assert (unknown.status_code, unknown.json()["allowed"]) == (400, ["merge"])
    assert known.status_code == 200


async def test_what_was_called_once_may_be_asked_for_by_those_who_may_know_of_it(root: Path) -> None:
    async with serving(root) as server:
        with server.ledger.transaction() as transaction:
            transaction.insert([call(0, server_slug="gone", token_id="bob")])
        for_all = await server.http.head(f"{PATH}?server=gone")
        for_bob = await server.http.head(f"{PATH}?server=gone", headers=authorization("bob"))
        for_alice = await server.http.get(f"{PATH}?server=gone", headers=authorization("alice"))

    assert (for_all.status_code, for_bob.status_code) == (200, 200)
    assert (for_alice.status_code, for_alice.json()["allowed"]) == (400, ["github", "jira"])


async def test_without_the_ledger_only_names_that_it_alone_knows_are_503(root: Path, writer: Writer) -> None:
    async with serving(root) as server:
        server.ledger.close()
        away = await server.http.get(f"{PATH}?server=gone")
        async with server.connect("server=github&token=alice") as client:
            await client.ready()
            writer.append(call(0))
            assert await client.calls(1) == ["c0"]

    assert away.status_code == 503
    assert int(away.headers["retry-after"]) > 0


# -- the request


@pytest.mark.parametrize("slash", ["", "/"])
async def test_head_is_the_head_of_an_answer_whose_length_nobody_knows(root: Path, slash: str) -> None:
    async with serving(root) as server:
        response = await server.http.head(f"{PATH}{slash}")

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "content-length" not in response.headers


async def test_a_slash_at_the_end_changes_nothing(root: Path, writer: Writer) -> None:
    writer.append(call(0))
    async with serving(root) as server, server.http.stream("GET", f"{PATH}/?last=1") as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                assert line == "event: call"
                break


# -- replicas


async def test_a_place_in_another_replicas_journal_begins_at_the_end_and_says_that_calls_are_missing(
    tmp_path: Path, writer: Writer, root: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    other = Writer(elsewhere, "relay-0")
    other.append(call(0))
    async with serving(elsewhere) as server, server.connect("last=1") as client:
        assert await client.calls(1) == ["c0"]
        place = client.last_event_id
    other.close()

    writer.append(call(1))
    async with serving(root) as server, server.connect("last=10", last_event_id=place) as client:
        lag = await client.event()
        assert (lag.event, lag.data) == ("lag", {"skipped": None})
        writer.append(call(2))
        assert await client.calls(1) == ["c2"]
        assert client.last_event_id is not None
        here = client.last_event_id
    writer.append(call(3))
    async with serving(root) as server, server.connect(last_event_id=here) as client:
        assert await client.calls(1) == ["c3"]
