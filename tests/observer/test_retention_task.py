"""Retention while the observer runs: by the plan that holds now, counted, and without holding up anybody."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.ledger import Ledger, open_ledger
from gateway.ledger.queries import Query
from gateway.months import DAY_NS
from gateway.observer import signals
from gateway.observer.maintenance import RetentionTask
from tests.observer.events import AT_ONCE, Clock, call, sink_at, until, value

NOW_NS = Clock().ns
DELETED = signals.LEDGER_ROWS_DELETED.name


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(None, tmp_path)
    yield opened
    opened.close()


def plans(**days: int | None) -> Config:
    """Workspaces with plans of their own that keep calls for so many days."""
    return Config.model_validate(
        {
            "plans": {slug: {"retention_days": kept} for slug, kept in days.items()},
            "workspaces": {slug: {"plan": slug} for slug in days},
        }
    )


def retention(ledger: Ledger, config: Config, *, batch: int = 3) -> RetentionTask:
    one = RetentionTask(ledger, clock=lambda: NOW_NS, interval=3600, batch=batch)
    one.configure(config)
    return one


def fill(ledger: Ledger, workspace_id: str, *days_ago: int) -> None:
    """A call of each age, and one a nanosecond older."""
    with ledger.transaction() as transaction:
        transaction.insert(
            [
                call(number, workspace_id=workspace_id, timestamp_ns=NOW_NS - days * DAY_NS - older)
                for number, days in enumerate(days_ago)
                for older in (0, 1)
            ]
        )


def kept(ledger: Ledger, workspace_id: str) -> int:
    query = Query("select count(*) from calls where workspace_id = $workspace", {"workspace": workspace_id})
    with ledger.snapshot() as snapshot:
        [(calls,)] = snapshot.rows(query)
    return int(calls)


@asynccontextmanager
async def running(one: RetentionTask) -> AsyncIterator[None]:
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_each_workspace_keeps_what_its_plan_says_and_one_without_a_plan_keeps_all(ledger: Ledger) -> None:
    for workspace_id in ("week", "month", "forever", "configured-no-more"):
        fill(ledger, workspace_id, 0, 1, 7, 30, 400)
    one = retention(ledger, plans(week=7, month=30, forever=None))
    one.round()
    assert kept(ledger, "week") == 5, "at the boundary a call is kept, and a nanosecond behind it not"
    assert kept(ledger, "month") == 7
    assert kept(ledger, "forever") == kept(ledger, "configured-no-more") == 10
    assert one.deleted() == {("week",): 5, ("month",): 3, ("forever",): 0}


async def test_the_first_round_is_at_the_start_and_another_when_a_plan_changes(ledger: Ledger) -> None:
    fill(ledger, "ours", 0, 7, 30)
    one = retention(ledger, plans(ours=30))
    async with running(one):
        await until(lambda: kept(ledger, "ours") == 5)
        one.configure(plans(ours=1))
        await until(lambda: kept(ledger, "ours") == 2)
    assert one.deleted() == {("ours",): 4}


def test_a_plan_that_keeps_more_holds_in_the_middle_of_a_round(ledger: Ledger) -> None:
    class Generous(RetentionTask):
        """Hears of a larger plan behind the first batch."""

        def _delete_batch(self, workspace_id: str) -> bool:
            more = super()._delete_batch(workspace_id)
            self.configure(plans(ours=None))
            return more

    fill(ledger, "ours", 7, 8, 9, 10)
    one = Generous(ledger, clock=lambda: NOW_NS, batch=2)
    one.configure(plans(ours=1))
    one.round()
    assert kept(ledger, "ours") == 6


async def test_who_stops_in_the_middle_goes_on_at_the_next_start(ledger: Ledger) -> None:
    fill(ledger, "ours", *range(10, 60))
    one = retention(ledger, plans(ours=7), batch=1)
    async with running(one):
        await until(lambda: kept(ledger, "ours") < 100)
    assert kept(ledger, "ours") > 0
    again = retention(ledger, plans(ours=7))
    again.round()
    assert kept(ledger, "ours") == 0


def test_what_is_deleted_is_counted_from_0_on_and_over_restarts(tmp_path: Path, ledger: Ledger) -> None:
    clock = Clock()
    fill(ledger, "ours", 10, 20)
    one = retention(ledger, plans(ours=7))
    first = sink_at(tmp_path, clock, AT_ONCE)
    first.add_source(signals.LEDGER_ROWS_DELETED, one.deleted)
    assert value(first, DELETED, workspace="ours") == 0
    one.round()
    first.close()
    assert value(first, DELETED, workspace="ours") == 4

    fill(ledger, "ours", 11)
    one = retention(ledger, plans(ours=7))
    second = sink_at(tmp_path, clock, AT_ONCE)
    second.add_source(signals.LEDGER_ROWS_DELETED, one.deleted)
    one.round()
    second.close()
    again = sink_at(tmp_path, clock, AT_ONCE)
    again._hidden_until = 0
    assert value(again, DELETED, workspace="ours") == 6


def test_a_ledger_that_is_away_is_said_and_tried_again(
    tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    other = open_ledger(None, tmp_path / "other")
    other.close()
    one = retention(other, plans(ours=7))
    one.round()
    assert "old calls are deleted later: the ledger is closed" in caplog.text
    fill(ledger, "ours", 10)
    one._ledger = ledger
    one.round()
    assert kept(ledger, "ours") == 0
