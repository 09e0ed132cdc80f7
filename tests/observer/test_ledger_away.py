"""The observer while its ledger is away: everything else goes on, and what asks the ledger is told at once."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import psycopg
import pytest

from gateway.config import load
from gateway.journal import Writer
from gateway.ledger import open_ledger
from tests.databases import Cluster
from tests.observer.events import Clock
from tests.observer.test_observer_app import (
    API,
    AUTHORIZATION,
    TOOL_CALLS,
    call,
    ledger_calls,
    plane,
    sample,
    scrape,
    until,
)
from tests.observer.test_observer_app import write_config as write

NOW_NS = Clock().ns


@contextlib.asynccontextmanager
async def observing(folder: Path, url: str, calls: int) -> AsyncIterator[tuple[httpx.AsyncClient, Writer]]:
    """The plane over a journal that has this many calls, beside the journal's writer."""
    config_path = write(folder / "callscope.yaml", ledger=url)
    writer = Writer(load(config_path).data_dir / "journal", "relay-0")
    for number in range(calls):
        writer.append(call(number))
    try:
        async with plane(config_path) as http:
            yield http, writer
    finally:
        writer.close()


async def assert_only_the_ledger_is_away(http: httpx.AsyncClient, calls: int) -> None:
    async def counted() -> bool:
        return sample(await scrape(http), TOOL_CALLS) == calls

    await until(counted)
    page = await scrape(http)
    assert "mcp_gateway_usage_calls{" not in page
    assert sample(page, "mcp_gateway_plan_limit_calls", workspace="engineering") == 500_000
    answer = await http.get(f"{API}/overview", headers=AUTHORIZATION)
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert (await http.get("/healthz")).status_code == 200
    ready = await http.get("/readyz")
    assert (ready.status_code, ready.json()["problems"]) == (503, ["the ledger is away"])
    assert "127.0.0.1" not in answer.text


async def test_it_starts_without_the_server_and_takes_everything_when_it_comes(
    own_postgresql: Cluster, tmp_path: Path
) -> None:
    url = own_postgresql.database()
    own_postgresql.stop()
    async with observing(tmp_path, url, calls=3) as (http, writer):
        await assert_only_the_ledger_is_away(http, 3)
        writer.append(call(3))
        own_postgresql.start()

        async def everything_is_there() -> bool:
            answer = await http.get(f"{API}/overview", headers=AUTHORIZATION)
            return answer.status_code == 200 and await ledger_calls(http) == 4

        await until(everything_is_there)
        assert (await http.get("/readyz")).status_code == 200
        assert sample(await scrape(http), "mcp_gateway_usage_calls", workspace="engineering") == 4


async def test_a_newer_schema_that_shows_after_the_start_is_an_outage_whose_log_says_why(
    own_postgresql: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_postgresql.database()
    open_ledger(url, tmp_path).close()
    with psycopg.connect(url) as connection:
        connection.execute("insert into schema_version values (99, 0)")
    own_postgresql.stop()
    async with observing(tmp_path, url, calls=2) as (http, _):
        own_postgresql.start()

        async def it_says_so() -> bool:
            assert "schema version 99" not in (await http.get("/readyz")).text
            return "schema version 99" in caplog.text

        await until(it_says_so)
        await assert_only_the_ledger_is_away(http, 2)
