"""The observer while its ledger is away: everything else goes on, and what asks the ledger is told at once."""

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import duckdb
import httpx
import psycopg
import pytest

from gateway.config import load
from gateway.errors import LedgerUnavailableError
from gateway.journal import Writer
from gateway.ledger import open_ledger
from gateway.ledger.duckdb_driver import DuckLedger, DuckSnapshot
from gateway.ledger.totals import Totals
from gateway.observer.usage_metrics import LedgerUsage
from tests.databases import Cluster
from tests.observer.counting import Clock, configuration
from tests.observer.counting import call as counted_call
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


ONE_CALL = {"engineering": Totals(used=1, today=1, week=1, month=1), "lab": Totals()}


class SilentLedger(DuckLedger):
    """Says nothing while `silent` is set, and that it is away once that is over, as behind a network that fails."""

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection], *, query_seconds: float = 30) -> None:
        super().__init__(connect, query_seconds=query_seconds)
        self.silent = threading.Event()
        self.heard = threading.Event()

    @contextlib.contextmanager
    def snapshot(self, *, seconds: float | None = None) -> Iterator[DuckSnapshot]:
        if self.silent.is_set():
            self.heard.wait(30)
            raise LedgerUnavailableError("it was cut off")
        with super().snapshot(seconds=seconds) as snapshot:
            yield snapshot


def test_a_ledger_that_says_nothing_holds_no_scrape_up(tmp_path: Path) -> None:
    ledger = SilentLedger.open(tmp_path / "ledger.duckdb")
    assert isinstance(ledger, SilentLedger)
    usage = LedgerUsage(ledger, clock=lambda: NOW_NS, wait=0.05)
    usage.configure(configuration())
    with ledger.transaction() as transaction:
        transaction.insert([counted_call(0, timestamp_ns=NOW_NS - 1)])
    patient = LedgerUsage(ledger, clock=lambda: NOW_NS, wait=30)
    patient.configure(configuration())
    assert patient() == ONE_CALL

    ledger.silent.set()
    asking = threading.active_count()
    assert [usage() for _ in range(3)] == [{}, {}, {}], "what was never counted has no value"
    assert threading.active_count() == asking + 1, "one question is enough"
    patient._wait = 0.05
    assert patient() == ONE_CALL, "the last count stands in for one that takes long"

    ledger.heard.set()
    patient._wait = 30
    assert patient() == {}, "it said that it is away"
    ledger.silent.clear()
    assert patient() == ONE_CALL
    ledger.close()
