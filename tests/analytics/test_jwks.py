"""Key sets that change, are slow, or away: keys by their names, out of a real HTTP server, with a clock that is set."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator

import jwt
import pytest

from gateway.analytics.jwks import KeySet, KeySetUnavailableError
from tests.analytics.key_server import EC_KEY, RSA_KEY, KeyServer, key_server, nobodys_url, public

REFRESH_S, LIFETIME_S, COOLDOWN_S = 60.0, 300.0, 5.0


class Clock:
    """Seconds that go on when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def go_on(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as running:
        yield running


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def key_set(server: KeyServer, clock: Clock) -> KeySet:
    return KeySet(server.url, clock=clock)


async def test_a_key_is_fetched_once_and_then_known(server: KeyServer, key_set: KeySet) -> None:
    server.keys = [public(RSA_KEY, "r"), public(EC_KEY, "e")]

    found = [(await key_set.key(name)).algorithm_name for name in ("r", "e", "r")]

    assert found == ["RS256", "ES256", "RS256"]
    assert server.requests == 1


async def test_many_who_ask_at_once_share_one_fetch(server: KeyServer, key_set: KeySet) -> None:
    server.keys = [public(RSA_KEY, "r")]
    server.answering.clear()
    asking = [asyncio.create_task(key_set.key("r")) for _ in range(50)]
    await _until(lambda: server.requests == 1)
    server.answering.set()

    assert {key.key_id for key in await asyncio.gather(*asking)} == {"r"}
    assert server.requests == 1


async def test_a_key_with_a_new_name_is_fetched_at_once(server: KeyServer, key_set: KeySet, clock: Clock) -> None:
    server.keys = [public(RSA_KEY, "old")]
    await key_set.key("old")
    clock.go_on(COOLDOWN_S)
    server.keys = [public(RSA_KEY, "old"), public(EC_KEY, "new")]

    assert (await key_set.key("new")).key_id == "new"
    assert (await key_set.key("old")).key_id == "old"
    assert server.requests == 2


async def test_unknown_key_names_cause_one_fetch_in_a_cooldown(
    server: KeyServer, key_set: KeySet, clock: Clock
) -> None:
    server.keys = [public(RSA_KEY, "r")]
    await key_set.key("r")
    for _ in range(3):
        clock.go_on(COOLDOWN_S)
        for number in range(100):
            with pytest.raises(jwt.PyJWKClientError):
                await key_set.key(f"made-up-{number}")

    assert server.requests == 4


async def test_who_has_a_known_key_does_not_wait_for_an_address_that_hangs(
    server: KeyServer, key_set: KeySet, clock: Clock
) -> None:
    server.keys = [public(RSA_KEY, "r")]
    await key_set.key("r")
    clock.go_on(REFRESH_S)
    server.answering.clear()
    strangers = [asyncio.create_task(key_set.key(f"made-up-{number}")) for number in range(20)]
    await _until(lambda: server.requests == 2)

    known = [await key_set.key("r") for _ in range(20)]

    assert len(known) == 20
    assert not any(stranger.done() for stranger in strangers)
    server.answering.set()
    refused = await asyncio.gather(*strangers, return_exceptions=True)
    assert {type(refusal) for refusal in refused} == {jwt.PyJWKClientError}
    assert server.requests == 2


async def test_an_address_that_hangs_holds_nobody_for_longer_than_the_time_limit(server: KeyServer) -> None:
    key_set = KeySet(server.url, timeout_s=0.3)
    server.answering.clear()

    async with asyncio.timeout(60):
        refused = await asyncio.gather(*(key_set.key("r") for _ in range(50)), return_exceptions=True)

    assert {type(refusal) for refusal in refused} == {KeySetUnavailableError}
    assert server.requests <= 1


async def test_a_removed_key_ends_with_the_next_fetch(server: KeyServer, key_set: KeySet, clock: Clock) -> None:
    server.keys = [public(RSA_KEY, "removed"), public(EC_KEY, "stays")]
    await key_set.key("removed")
    server.keys = server.keys[1:]
    clock.go_on(REFRESH_S - 1)
    assert (await key_set.key("removed")).key_id == "removed"
    clock.go_on(1)

    with pytest.raises(jwt.PyJWKClientError):
        await key_set.key("removed")
    assert (await key_set.key("stays")).key_id == "stays"


async def test_a_set_without_any_key_takes_all_of_them_away(server: KeyServer, key_set: KeySet, clock: Clock) -> None:
    server.keys = [public(RSA_KEY, "r")]
    await key_set.key("r")
    server.keys = []
    clock.go_on(REFRESH_S)

    with pytest.raises(jwt.PyJWKClientError):
        await key_set.key("r")


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, None), (302, None), (404, b'{"keys": []}'), (200, b"<html>"), (200, b"[]"), (200, b'{"keys": {}}')],
)
async def test_while_the_address_fails_the_keys_hold_until_they_are_too_old(
    server: KeyServer, key_set: KeySet, clock: Clock, status: int, body: bytes | None
) -> None:
    server.keys = [public(RSA_KEY, "r")]
    await key_set.key("r")
    server.status, server.body = status, body

    for _ in range(int(LIFETIME_S) - 1):
        clock.go_on(1)
        assert (await key_set.key("r")).key_id == "r"
    assert 2 < server.requests < LIFETIME_S / COOLDOWN_S
    with pytest.raises(KeySetUnavailableError):  # it may be a new one
        await key_set.key("new")
    clock.go_on(1)
    with pytest.raises(KeySetUnavailableError):
        await key_set.key("r")

    server.status, server.body = 200, None
    clock.go_on(COOLDOWN_S)
    assert (await key_set.key("r")).key_id == "r"


async def test_an_address_where_nobody_listens_is_said_and_tried_again(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    key_set = KeySet(nobodys_url(), clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            with pytest.raises(KeySetUnavailableError):
                await key_set.key("r")
        clock.go_on(COOLDOWN_S)
        with pytest.raises(KeySetUnavailableError):
            await key_set.key("r")

    assert len(caplog.records) == 2
    assert "api.jwt.jwks_url" in caplog.text


async def test_a_fetch_whose_asker_leaves_is_taken_up_by_the_next_one(
    server: KeyServer, key_set: KeySet, clock: Clock
) -> None:
    server.keys = [public(RSA_KEY, "r")]
    server.answering.clear()
    leaving = asyncio.create_task(key_set.key("r"))
    await _until(lambda: server.requests == 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    server.answering.set()
    clock.go_on(COOLDOWN_S)

    assert (await key_set.key("r")).key_id == "r"


@pytest.mark.parametrize(
    "unusable",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "x", "alg": "HS256"},
        {"kty": "quantum", "kid": "x"},
        {"kty": "RSA", "n": "!", "e": 7, "kid": "x"},
        public(RSA_KEY, "x", use="enc"),
        public(RSA_KEY, "x", alg="RS512"),
        {name: value for name, value in public(RSA_KEY, "x").items() if name != "kid"},
        {**public(RSA_KEY, "x"), "kid": 7},
        "no key",
        None,
    ],
)
async def test_keys_that_cannot_verify_are_passed_over(server: KeyServer, key_set: KeySet, unusable: object) -> None:
    server.keys = [unusable, public(EC_KEY, "e")]  # type: ignore[list-item]  # the address may answer anything

    assert (await key_set.key("e")).key_id == "e"
    with pytest.raises(jwt.PyJWKClientError):
        await key_set.key("x")


async def _until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the condition is the server's thread's
            await asyncio.sleep(0.005)


async def test_a_server_that_answers_byte_by_byte_keeps_no_thread(clock: Clock) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        ended.release()

    ended = asyncio.Semaphore(0)
    dripping = await asyncio.start_server(drip, "127.0.0.1", 0)
    port = dripping.sockets[0].getsockname()[1]
    key_set = KeySet(f"http://127.0.0.1:{port}/", clock=clock, timeout_s=0.2)
    threads = []
    for _ in range(4):
        with pytest.raises(KeySetUnavailableError):
            await key_set.key("any")
        threads.append(threading.active_count())
        clock.go_on(COOLDOWN_S)
    assert threads[0] == threads[-1], "only the first fetch may start a thread, to look up the address"
    for _ in threads:
        await ended.acquire()
    dripping.close()
    await dripping.wait_closed()


async def test_a_password_in_the_address_is_sent_and_never_logged(
    server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server.keys = [public(RSA_KEY, "r")]
    address = server.url.removeprefix("http://")
    assert await KeySet(f"http://user:s3cret@{address}", clock=clock).key("r")
    for wrong in (f"http://user:s3cret@{nobodys_url().removeprefix('http://')}", "http://user:s3cret@127.0.0.1:none/"):
        with pytest.raises(KeySetUnavailableError):
            await KeySet(wrong, clock=clock).key("r")
    assert "cannot be fetched" in caplog.text
    assert "s3cret" not in caplog.text
