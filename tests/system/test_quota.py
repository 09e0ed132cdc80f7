"""Plans that are enforced, through the public doors: as many calls are served as the plan allows."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.quota_snapshot import read_snapshot, snapshot_path
from tests.databases import Cluster
from tests.system.clients import Outcome, call, post
from tests.system.gateway_process import TIMEOUT_S, TLS, WORKSPACE, Gateway, eventually, running
from tests.system.plans import change, metric, used
from tests.system.signal_counts import from_api, from_ledger, from_metrics

LIMIT = 20
UNKNOWN = "mcp_gateway_usage_unknown_total"


def within(limit: int, *, fail: str = "open", **others: Any) -> dict[str, Any]:
    """The settings of a gateway whose every plan has this limit."""
    return {
        "usage": {"enforce": True, "fail": fail},
        "plans": {"enterprise": {"calls_per_month": limit}, "free": {}},
        **others,
    }


@contextlib.contextmanager
def limited(folder: Path, servers: dict[str, dict[str, Any]], **settings: Any) -> Iterator[Gateway]:
    with running(
        folder, {"modern": servers["modern"]}, {"alice": {}, "bob": {}}, settings=within(LIMIT, **settings)
    ) as gateway:
        yield gateway


def one_by_one(gateway: Gateway, calls: int) -> Counter[int]:
    return Counter(post(gateway, call("modern__echo"), "alice").status_code for _ in range(calls))


async def burst(gateway: Gateway, calls: int) -> Counter[int]:
    headers = {"Authorization": f"Bearer {gateway.secrets['alice']}"}
    async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S, verify=TLS) as http:
        answers = await asyncio.gather(*(http.post(gateway.url, **call("modern__pause", i)) for i in range(calls)))
    return Counter(answer.status_code for answer in answers)


def restarted(gateway: Gateway, name: str) -> None:
    """Kill a process, and wait until another one serves in its place."""
    before = gateway.pid(name)
    gateway.kill(name)
    eventually(lambda: gateway.pid(name) != before)


def counted(gateway: Gateway, calls: int) -> None:
    """Wait until the relays can know that the ledger has counted so many calls."""

    def known() -> bool:
        snapshot = read_snapshot(snapshot_path(gateway.data))
        return snapshot is not None and snapshot.used.get(WORKSPACE, 0) == calls

    assert eventually(known)


def served(tool: str, calls: int) -> dict[Outcome, int]:
    return {Outcome("alice", "modern", tool, "success", None): calls}


def refused(tool: str, calls: int) -> dict[Outcome, int]:
    return {Outcome("alice", "modern", tool, "error", "quota_exceeded"): calls}


def test_one_by_one_as_many_calls_are_served_as_the_plan_allows_and_every_signal_says_so(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with limited(tmp_path, servers) as gateway:
        assert one_by_one(gateway, 50) == {200: LIMIT, 429: 30}
        answer = post(gateway, call("modern__echo", "mine"), "bob")
        error = answer.json()["error"]
        assert (answer.status_code, answer.json()["id"], error["code"]) == (429, "mine", 429)
        assert error["data"]["error_type"] == "quota_exceeded"
        assert (error["data"]["limit"], error["data"]["used"]) == (LIMIT, LIMIT)
        assert int(answer.headers["Retry-After"]) > 0

        expected = {
            **served("echo", LIMIT),
            **refused("echo", 30),
            Outcome("bob", "modern", "echo", "error", "quota_exceeded"): 1,
        }
        assert eventually(lambda: from_api(gateway) == expected)
        assert eventually(lambda: from_metrics(gateway) == expected)
        assert used(gateway) == LIMIT
        assert metric(gateway, "mcp_gateway_usage_calls", workspace=WORKSPACE) == LIMIT
        assert metric(gateway, "mcp_gateway_plan_limit_calls", workspace=WORKSPACE) == LIMIT
        assert metric(gateway, UNKNOWN) == 0
        assert gateway.stop() == 0
        assert from_ledger(gateway) == expected


async def test_a_burst_gets_no_call_more_and_a_larger_plan_holds_for_the_next_one(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with limited(tmp_path, servers) as gateway:
        assert await burst(gateway, 50) == {200: LIMIT, 429: 30}
        change(gateway, **within(LIMIT + 5))
        await asyncio.to_thread(eventually, lambda: post(gateway, call("modern__pause"), "alice").status_code == 200)
        assert await burst(gateway, 20) == {200: 4, 429: 16}
        await asyncio.to_thread(eventually, lambda: used(gateway) == LIMIT + 5)
        assert await burst(gateway, 5) == {429: 5}


async def test_an_observer_that_is_killed_in_the_middle_lets_no_call_more_through_and_refuses_none_more(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with limited(tmp_path, servers, fail="closed") as gateway:
        assert await burst(gateway, 8) == {200: 8}
        await asyncio.to_thread(restarted, gateway, "observer")
        assert await burst(gateway, 5) == {200: 5}
        await asyncio.to_thread(restarted, gateway, "observer")
        assert await burst(gateway, 30) == {200: 7, 429: 23}
        await asyncio.to_thread(restarted, gateway, "observer")
        assert await burst(gateway, 5) == {429: 5}
        await asyncio.to_thread(eventually, lambda: used(gateway) == LIMIT)
        assert metric(gateway, UNKNOWN) == 0


async def test_a_relay_that_is_killed_goes_on_from_what_the_ledger_has_counted(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with limited(tmp_path, servers, fail="closed") as gateway:
        assert await burst(gateway, 8) == {200: 8}
        await asyncio.to_thread(counted, gateway, 8)
        await asyncio.to_thread(restarted, gateway, "relay-0")
        assert await burst(gateway, 30) == {200: 12, 429: 18}
        await asyncio.to_thread(counted, gateway, LIMIT)
        await asyncio.to_thread(restarted, gateway, "relay-0")
        assert await burst(gateway, 5) == {429: 5}
        assert used(gateway) == LIMIT
        assert metric(gateway, UNKNOWN) == 0


async def test_calls_that_a_killed_relay_had_in_flight_are_used(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    """They were sent to the server: their record says `gateway_error`, and counts."""

    async def cut() -> None:
        with contextlib.suppress(httpx.TransportError):
            await asyncio.to_thread(post, gateway, call("modern__hang"), "alice")

    with limited(tmp_path, servers) as gateway:
        hanging = [asyncio.create_task(cut()) for _ in range(5)]
        in_flight = "mcp_gateway_in_flight_calls"
        await asyncio.to_thread(eventually, lambda: metric(gateway, in_flight, workspace=WORKSPACE) == 5)
        await asyncio.to_thread(restarted, gateway, "relay-0")
        await asyncio.gather(*hanging)
        await asyncio.to_thread(counted, gateway, 5)
        await asyncio.to_thread(restarted, gateway, "relay-0")  # it begins with the snapshot that has them
        assert await burst(gateway, 30) == {200: LIMIT - 5, 429: 15}
        await asyncio.to_thread(eventually, lambda: used(gateway) == LIMIT)


def test_a_gateway_that_is_stopped_and_started_goes_on_counting_from_its_first_call(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with limited(tmp_path, servers, fail="closed") as gateway:
        assert one_by_one(gateway, 12) == {200: 12}
        counted(gateway, 12)
        assert gateway.stop() == 0
        gateway.start()
        assert one_by_one(gateway, 12) == {200: 8, 429: 4}
        counted(gateway, LIMIT)
        for process in ("observer", "relay-0", "supervisor"):
            gateway.kill(process)
        gateway.stop()
        gateway.start()
        assert one_by_one(gateway, 3) == {429: 3}
        assert eventually(lambda: used(gateway) == LIMIT)


@contextlib.contextmanager
def silent(gateway: Gateway, name: str) -> Iterator[None]:
    """A process that is there and does nothing."""
    pid = gateway.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
    assert gateway.pid(name) == pid


@pytest.mark.slow
def test_open_lets_calls_through_while_the_observer_is_away_and_they_are_used(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with limited(tmp_path, servers, fail="open") as gateway:
        assert one_by_one(gateway, LIMIT + 1) == {200: LIMIT, 429: 1}
        with silent(gateway, "observer"):
            eventually(lambda: one_by_one(gateway, 1) == {200: 1})
            assert one_by_one(gateway, 9) == {200: 9}
        assert eventually(lambda: used(gateway) == LIMIT + 10)
        assert eventually(lambda: metric(gateway, UNKNOWN, workspace=WORKSPACE, decision="allowed") == 10)
        assert metric(gateway, UNKNOWN, decision="refused") == 0
        eventually(lambda: one_by_one(gateway, 1) == {429: 1})


@pytest.mark.slow
def test_closed_refuses_calls_while_the_observer_is_away_and_serves_them_when_it_is_back(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with limited(tmp_path, servers, fail="closed", plans={"enterprise": {"calls_per_month": 10_000}}) as gateway:
        with silent(gateway, "observer"):
            eventually(lambda: one_by_one(gateway, 1) == {429: 1})
            answer = post(gateway, call("modern__echo"), "alice")
            assert one_by_one(gateway, 8) == {429: 8}
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "10")
        assert "usage.fail: closed" in answer.json()["error"]["message"]
        assert eventually(lambda: metric(gateway, UNKNOWN, workspace=WORKSPACE, decision="refused") == 10)
        assert metric(gateway, UNKNOWN, decision="allowed") == 0
        eventually(lambda: one_by_one(gateway, 1) == {200: 1})


def test_with_a_ledger_in_postgresql_it_is_the_same(
    tmp_path: Path, servers: dict[str, dict[str, Any]], postgresql: Cluster
) -> None:
    with limited(tmp_path, servers, fail="closed", ledger=postgresql.database()) as gateway:
        assert one_by_one(gateway, 15) == {200: 15}
        counted(gateway, 15)
        restarted(gateway, "relay-0")
        restarted(gateway, "observer")
        assert one_by_one(gateway, 15) == {200: 5, 429: 10}
        assert eventually(lambda: used(gateway) == LIMIT)


async def test_two_relays_exceed_a_limit_by_no_more_than_one_of_them_could_serve_alone(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    """The bound of docs/ledger.md for two relays, the oldest of whose snapshots says that nothing is used."""
    settings = within(LIMIT, fail="closed")
    with running(tmp_path, {"modern": servers["modern"]}, {"alice": {}}, workers=2, settings=settings) as gateway:
        answers = await burst(gateway, 4 * LIMIT)
        assert LIMIT <= answers[200] <= 2 * LIMIT
        await asyncio.to_thread(counted, gateway, answers[200])
        await asyncio.to_thread(eventually, lambda: one_by_one(gateway, 10) == {429: 10})
        assert used(gateway) == answers[200]
