"""The count of used calls for the relays: one state of the ledger, written while plans are enforced."""

import asyncio
import contextlib
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.calls import ErrorType
from gateway.config import Config
from gateway.ledger import Ledger, LedgerSink, open_ledger
from gateway.ledger.queries import Query
from gateway.ledger.retention import delete_batch
from gateway.months import month_of
from gateway.observer.quota_snapshot_writer import QuotaSnapshotWriter
from gateway.quota_snapshot import QuotaSnapshot, read_snapshot, snapshot_path
from tests.ledger.records import batch
from tests.observer.events import Clock, call

MONTH = month_of(Clock().ns)


class Counting:
    """A ledger that knows how often its calls were counted."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.counts = 0

    @contextlib.contextmanager
    def snapshot(self, **options: Any) -> Iterator[Any]:
        with self._ledger.snapshot(**options) as snapshot:
            outer = self

            class Watched:
                def rows(self, query: Query) -> Any:
                    outer.counts += "deleted_usage" in query.sql
                    return snapshot.rows(query)

            yield Watched()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)


@pytest.fixture
def ledger(ledger_url: str | None, tmp_path: Path) -> Iterator[Counting]:
    opened = open_ledger(ledger_url, tmp_path)
    yield Counting(opened)
    opened.close()


def enforced(enforce: bool = True) -> Config:  # noqa: FBT001, FBT002 - the setting's value
    return Config.model_validate({"usage": {"enforce": enforce}})


def snapshots(ledger: Any, folder: Path, clock: Clock, *, journal_id: str = "ours") -> QuotaSnapshotWriter:
    one = QuotaSnapshotWriter(ledger, folder, journal_id=journal_id, clock=lambda: clock.ns, interval_s=0.01)
    one.configure(enforced())
    return one


def written(folder: Path) -> QuotaSnapshot:
    snapshot = read_snapshot(snapshot_path(folder))
    assert snapshot is not None
    return snapshot


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what a condition looks at sets no event
            await asyncio.sleep(0.005)


def test_a_snapshot_has_the_months_calls_of_every_workspace_and_this_journals_positions(
    tmp_path: Path, ledger: Counting
) -> None:
    refused = {"status": "error", "error_type": ErrorType.QUOTA_EXCEEDED}
    calls = [
        call(0, timestamp_ns=MONTH.start_ns - 1),
        call(1, timestamp_ns=MONTH.start_ns),
        call(2, timestamp_ns=MONTH.end_ns - 1),
        call(3, timestamp_ns=MONTH.end_ns),
        call(4, **refused),
        call(5, status="error", error_type=ErrorType.TOOL_ERROR),
        call(6, workspace_id="configured-no-more"),
    ]
    LedgerSink(ledger, journal_id="ours").process(batch(calls, writer="w1"))
    LedgerSink(ledger, journal_id="theirs").process(batch([call(7)], writer="w2"))
    clock = Clock()
    snapshots(ledger, tmp_path, clock).write()
    assert written(tmp_path) == QuotaSnapshot(
        written_ns=clock.ns,
        month_start_ns=MONTH.start_ns,
        used={"engineering": 4, "configured-no-more": 1},
        positions={"w1": 70},
    )


def test_calls_that_retention_has_deleted_are_in_it(tmp_path: Path, ledger: Counting) -> None:
    LedgerSink(ledger, journal_id="ours").process(batch([call(0), call(1)]))
    delete_batch(ledger, "engineering", MONTH.end_ns)
    snapshots(ledger, tmp_path, Clock()).write()
    assert written(tmp_path).used == {"engineering": 2}


def test_each_snapshot_is_of_its_time_and_counts_anew_only_what_can_have_changed(
    tmp_path: Path, ledger: Counting
) -> None:
    sink = LedgerSink(ledger, journal_id="ours")
    sink.process(batch([call(0)]))
    clock = Clock()
    one = snapshots(ledger, tmp_path, clock)
    one.write()
    clock.now += 1
    one.write()
    assert (ledger.counts, written(tmp_path).written_ns) == (1, clock.ns)

    sink.process(batch([call(1)], start=10))
    one.write()
    assert (ledger.counts, written(tmp_path).used, written(tmp_path).positions) == (2, {"engineering": 2}, {"w1": 20})

    LedgerSink(ledger, journal_id="theirs").process(batch([call(2)], writer="w2"))
    one.write()
    assert (ledger.counts, written(tmp_path).used) == (3, {"engineering": 3})

    clock.now = MONTH.end_ns / 1e9 + 1
    one.write()
    assert (ledger.counts, written(tmp_path).used) == (4, {})


async def test_snapshots_are_written_while_plans_are_enforced_and_taken_away_when_not(
    tmp_path: Path, ledger: Counting
) -> None:
    clock, path = Clock(), snapshot_path(tmp_path)
    one = snapshots(ledger, tmp_path, clock)
    task = asyncio.create_task(one.run())
    await until(path.exists)
    clock.now += 1
    await until(lambda: written(tmp_path).written_ns == clock.ns)
    assert not stat.S_IMODE(path.stat().st_mode) & stat.S_IWOTH

    one.configure(enforced(enforce=False))
    await until(lambda: not path.exists())
    one.configure(enforced())
    await until(path.exists)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_ledger_that_is_away_gets_no_snapshot_and_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = open_ledger(None, tmp_path)
    clock = Clock()
    one = snapshots(ledger, tmp_path, clock)
    one.write()
    before = written(tmp_path)
    ledger.close()
    clock.now += 1
    one.write()
    one.write()
    assert written(tmp_path) == before
    assert caplog.text.count("the relays do not get the count of used calls: the ledger is closed") == 1
