"""A gateway whose ledger is in PostgreSQL: the server goes and is cut off during traffic, and no number changes."""

import asyncio
from pathlib import Path
from typing import Any

import httpx

from tests.databases import Cluster
from tests.ledger.proxy import Proxy, proxy
from tests.system.clients import Counts, Mode, Planned, make_all
from tests.system.gateway_process import TIMEOUT_S, TLS, Gateway, eventually, running
from tests.system.signal_counts import from_api, from_metrics, live_stream

MODES: dict[str, Mode] = {"alice": "auto", "bob": "legacy"}
KINDS = [("modern", "echo"), ("legacy", "echo"), ("local", "echo"), ("modern", "tool_error"), ("modern", "nope")]


def plan(calls: int) -> list[Planned]:
    return [Planned(list(MODES)[i % 2], *KINDS[i // 2 % len(KINDS)]) for i in range(calls)]


def settings(url: str, server: Cluster, between: Proxy) -> dict[str, Any]:
    return {"ledger": url.replace(str(server.port), str(between.port))}


def status(gateway: Gateway) -> int:
    return httpx.get(
        f"{gateway.api}/analytics", headers=gateway.authorization, timeout=TIMEOUT_S, verify=TLS
    ).status_code


async def test_calls_go_on_and_are_counted_once_while_the_server_is_stopped_and_cut_off(
    tmp_path: Path, servers: dict[str, dict[str, Any]], own_postgresql: Cluster
) -> None:
    url = own_postgresql.database()
    clients = Counts()
    members: dict[str, dict[str, Any]] = {name: {} for name in MODES}
    with (
        proxy(own_postgresql.port) as between,
        running(tmp_path, servers, members, settings=settings(url, own_postgresql, between)) as gateway,
    ):
        async with live_stream(gateway) as live:
            clients += await make_all(gateway, plan(100), MODES)
            await asyncio.to_thread(eventually, lambda: from_api(gateway) == clients)

            await asyncio.to_thread(own_postgresql.stop, "immediate")
            clients += await make_all(gateway, plan(100), MODES)
            await asyncio.to_thread(eventually, lambda: from_metrics(gateway) == clients)
            assert await asyncio.to_thread(status, gateway) == 503
            await asyncio.to_thread(own_postgresql.start)

            between.silent.set()
            clients += await make_all(gateway, plan(100), MODES)
            await asyncio.to_thread(eventually, lambda: from_metrics(gateway) == clients)
            between.silent.clear()

            clients += await make_all(gateway, plan(100), MODES)
            await asyncio.to_thread(eventually, lambda: from_api(gateway) == clients)
            await asyncio.to_thread(eventually, lambda: live.counts == clients)
        assert from_metrics(gateway) == clients
        assert clients.total() == 400


async def test_replicas_share_the_ledger_and_each_answers_for_both(
    tmp_path: Path, servers: dict[str, dict[str, Any]], postgresql: Cluster
) -> None:
    members: dict[str, dict[str, Any]] = {name: {} for name in MODES}
    url = {"ledger": postgresql.database()}
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with (
        running(tmp_path / "one", servers, members, settings=url) as one,
        running(tmp_path / "two", servers, members, settings=url) as two,
    ):
        ours, theirs = await asyncio.gather(make_all(one, plan(60), MODES), make_all(two, plan(40), MODES))
        for gateway in (one, two):
            await asyncio.to_thread(eventually, lambda gateway=gateway: from_api(gateway) == ours + theirs)
        assert from_metrics(one) == ours
        assert from_metrics(two) == theirs
        one.kill("observer")
        await asyncio.to_thread(eventually, lambda: from_api(one) == ours + theirs)
