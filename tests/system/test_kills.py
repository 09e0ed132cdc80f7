"""`kill -9` in the middle of traffic loses no answered call and counts none twice."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx

from tests.system.clients import Counts, Mode, Outcome, Planned, call, make_each, post
from tests.system.gateway_process import TIMEOUT_S, TLS, Gateway, eventually, running
from tests.system.signal_counts import from_api, from_ledger, from_metrics

MODES: dict[str, Mode] = {"alice": "auto", "bob": "legacy"}


async def test_an_observer_that_is_killed_twice_during_the_calls_counts_all_of_them_once(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    """Exactly once in the ledger, and, as the counters' state is replayed, exactly once in the metrics."""
    kinds = [("modern", "echo"), ("legacy", "echo"), ("modern", "tool_error"), ("modern", "nope")]
    stop = asyncio.Event()

    def until_stopped(token_id: str) -> Iterator[Planned]:
        for server_slug, tool in itertools.cycle(kinds):
            if stop.is_set():
                return
            yield Planned(token_id, server_slug, tool)

    with running(tmp_path, servers, {name: {} for name in MODES}) as gateway:
        queues = {token_id: until_stopped(token_id) for token_id in MODES}
        traffic = asyncio.create_task(make_each(gateway, queues, MODES))
        for _ in range(2):
            seen = await asyncio.to_thread(eventually, lambda: from_api(gateway).total())
            await asyncio.to_thread(eventually, lambda seen=seen: from_api(gateway).total() > seen + 50)
            await asyncio.to_thread(_kill, gateway, "observer")
        stop.set()
        clients = await traffic

        await asyncio.to_thread(eventually, lambda: from_api(gateway).total() >= clients.total())
        await asyncio.to_thread(eventually, lambda: from_metrics(gateway).total() >= clients.total())
        assert from_api(gateway) == clients
        assert from_metrics(gateway) == clients
        assert gateway.stop() == 0
        assert from_ledger(gateway) == clients


async def test_a_relay_that_is_killed_takes_only_calls_with_it_that_nobody_got_an_answer_to(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    answered: set[str] = set()
    cut: set[str] = set()

    async def keep_calling(gateway: Gateway, worker: int, stop: asyncio.Event) -> None:
        """Calls with an id each, over a new connection after each that was cut."""
        headers = {"Authorization": f"Bearer {gateway.secrets['alice']}"}
        number = 0
        while not stop.is_set():
            async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S, verify=TLS) as http:
                while not stop.is_set():
                    number += 1
                    message = call("modern__pause", f"{worker}-{number}")
                    try:
                        response = await http.post(gateway.url, **message)
                        assert response.json()["id"] == f"{worker}-{number}"
                    except httpx.TransportError:
                        cut.add(f"{worker}-{number}")
                        break
                    answered.add(f"{worker}-{number}")

    with running(tmp_path, {"modern": servers["modern"]}, {"alice": {}}, workers=2) as gateway:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as workers:
            for worker in range(12):
                workers.create_task(keep_calling(gateway, worker, stop))
            for relay in ("relay-0", "relay-1"):
                seen = len(answered)
                await asyncio.to_thread(eventually, lambda seen=seen: len(answered) > seen + 50)
                await asyncio.to_thread(_kill, gateway, relay)
            stop.set()
        await asyncio.to_thread(eventually, lambda: from_api(gateway).total() >= len(answered))
        assert gateway.stop() == 0
        with duckdb.connect(str(gateway.data / "ledger.duckdb"), read_only=True) as ledger:
            rows = ledger.execute("select jsonrpc_id, error_type from calls").fetchall()

    counted = Counter(jsonrpc_id for jsonrpc_id, _ in rows)
    outcome = dict(rows)
    assert max(counted.values()) == 1
    assert {outcome.get(each, "not recorded") for each in answered} == {None}
    assert {outcome[each] for each in cut & set(outcome)} <= {"gateway_error", None}, "None: its answer was on the way"
    assert [each for each in cut if outcome.get(each) == "gateway_error"], "no call was under way when its relay died"
    assert set(outcome) <= answered | cut


def test_a_gateway_whose_every_process_is_killed_goes_on_where_it_was(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    kinds = ("echo", "tool_error", "nope")
    with running(tmp_path, {"modern": servers["modern"]}, {"alice": {}}) as gateway:
        for tool in kinds * 10:
            post(gateway, call(f"modern__{tool}"), "alice")
        for name in ("observer", "relay-0", "supervisor"):
            gateway.kill(name)
        gateway.stop()

        gateway.start()
        for tool in kinds * 10:
            post(gateway, call(f"modern__{tool}"), "alice")

        expected = Counts(
            {
                Outcome("alice", "modern", "echo", "success", None): 20,
                Outcome("alice", "modern", "tool_error", "error", "tool_error"): 20,
                Outcome("alice", "modern", "_unknown", "error", "unknown_tool"): 20,
            }
        )
        assert eventually(lambda: from_api(gateway) == expected)
        assert eventually(lambda: from_metrics(gateway) == expected)


def _kill(gateway: Gateway, name: str) -> None:
    """Kill a process, and wait until another one serves in its place."""
    before = gateway.pid(name)
    gateway.kill(name)
    eventually(lambda: gateway.pid(name) != before)
