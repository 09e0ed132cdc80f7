import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.calls import CallStart, ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.journal import Batch, Entry
from gateway.ledger import Ledger, LedgerSink, open_ledger
from gateway.ledger.duckdb_driver import DuckLedger, DuckTransaction
from gateway.ledger.queries import Query
from tests.ledger.records import batch, call


@pytest.fixture
def ledger(ledger_url: str | None, tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(ledger_url, tmp_path)
    yield opened
    opened.close()


class Clock:
    """Nanoseconds that move on by one second each time they are read."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 10**9
        return self.now_ns


def ids(ledger: Ledger) -> list[str]:
    with ledger.snapshot() as snapshot:
        return [call_id for (call_id,) in snapshot.rows(Query("select call_id from calls order by call_id", {}))]


def stored_positions(ledger: Ledger) -> dict[str, int]:
    with ledger.snapshot() as snapshot:
        return dict(snapshot.rows(Query("select writer, next_offset from positions", {})))


def test_calls_and_positions_are_there_together(ledger: Ledger) -> None:
    sink = LedgerSink(ledger)
    sink.process(batch([call(call_id="a"), call(call_id="b")], others={"w0": 7}))
    assert ids(ledger) == ["a", "b"]
    assert sink.committed == stored_positions(ledger) == {"w1": 20, "w0": 7}


def test_only_finished_calls_are_rows(ledger: Ledger) -> None:
    ended = call(call_id="a")
    start = CallStart(**{name: getattr(ended, name) for name in CallStart.__struct_fields__})
    LedgerSink(ledger).process(Batch([Entry(start, "w1", 10), Entry(ended, "w1", 20)], {"w1": 20}, 0, 0))
    assert ids(ledger) == ["a"]


def test_a_batch_that_comes_again_changes_nothing(ledger: Ledger) -> None:
    sink = LedgerSink(ledger)
    first = batch([call(call_id="a"), call(call_id="b")])
    sink.process(first)
    sink.process(first)
    LedgerSink(ledger).process(first)
    assert ids(ledger) == ["a", "b"]
    assert sink.committed == {"w1": 20}


def test_of_a_batch_that_overlaps_only_what_is_new_is_taken(ledger: Ledger) -> None:
    sink = LedgerSink(ledger)
    calls = [call(call_id=name) for name in "abcd"]
    sink.process(batch(calls[:2]))
    sink.process(batch(calls))
    assert ids(ledger) == ["a", "b", "c", "d"]


def test_positions_that_move_without_a_call_are_written_every_ten_seconds(ledger: Ledger) -> None:
    clock = Clock()
    sink = LedgerSink(ledger, clock=clock)
    sink.process(batch([call()]))
    before = as_of(ledger)
    sink.process(Batch([], {"w1": 30}, 0, 0))
    assert stored_positions(ledger) == {"w1": 10}
    clock.now_ns += 10 * 10**9
    sink.process(Batch([], {"w1": 10}, 0, 0))  # moves on the clock of the pass, and nothing else
    assert as_of(ledger) == before
    sink.process(Batch([], {"w1": 30, "w2": 5}, 0, 0))
    assert sink.committed == stored_positions(ledger) == {"w1": 30, "w2": 5}
    assert as_of(ledger) > before


def test_a_clock_that_is_set_back_stops_no_position(ledger: Ledger) -> None:
    clock = Clock()
    clock.now_ns = 1000 * 10**9
    sink = LedgerSink(ledger, clock=clock)
    sink.process(batch([call()]))
    clock.now_ns = 0
    sink.process(Batch([], {"w1": 10}, 0, 0))
    sink.process(Batch([], {"w1": 30}, 0, 0))
    assert stored_positions(ledger) == {"w1": 30}


def as_of(ledger: Ledger) -> int:
    with ledger.snapshot() as snapshot:
        [(ns,)] = snapshot.rows(Query("select max(as_of_ns) from positions", {}))
    return int(ns)


def test_the_positions_of_writers_that_are_gone_are_deleted(ledger: Ledger) -> None:
    clock = Clock()
    sink = LedgerSink(ledger, clock=clock)
    sink.process(batch([call()], others={"old": 5}))
    clock.now_ns += 10 * 10**9
    sink.process(Batch([], {"w1": 10, "old": 5}, 0, 0))
    sink.process(Batch([], {"w1": 10}, 0, 0))
    assert sink.committed == stored_positions(ledger) == {"w1": 10}


def test_a_batch_that_the_ledger_refuses_is_taken_whole_when_it_comes_again(ledger: Ledger) -> None:
    sink = LedgerSink(ledger)
    refused = batch([call(call_id="a"), call(call_id="b")])
    with ledger.transaction() as transaction:
        transaction.execute(Query("alter table positions rename to hidden", {}))
    with pytest.raises(Exception, match="positions"):
        sink.process(refused)
    assert ids(ledger) == []
    with ledger.transaction() as transaction:
        transaction.execute(Query("alter table hidden rename to positions", {}))
    sink.process(refused)
    assert ids(ledger) == ["a", "b"]


class ForgetfulLedger(DuckLedger):
    """Fails after each commit, as a broken connection would: the writer cannot know that it took place."""

    @contextlib.contextmanager
    def transaction(self) -> Iterator[DuckTransaction]:
        with super().transaction() as transaction:
            yield transaction
        raise LedgerUnavailableError("the answer was lost")


def test_a_commit_whose_answer_was_lost_is_not_repeated(tmp_path: Path) -> None:
    DuckLedger.open(tmp_path / "ledger.duckdb").close()
    ledger = ForgetfulLedger(lambda: duckdb.connect(str(tmp_path / "ledger.duckdb")))
    sink = LedgerSink(ledger)
    unanswered = batch([call(call_id="a"), call(call_id="b")])
    with pytest.raises(LedgerUnavailableError, match="lost"):
        sink.process(unanswered)
    sink.process(unanswered)
    assert ids(ledger) == ["a", "b"]
    ledger.close()


def test_freshness_is_what_was_in_the_journal_when_the_last_read_began(ledger: Ledger) -> None:
    clock = Clock()
    sink = LedgerSink(ledger, clock=clock)
    assert ledger.fresh_as_of_ns is None
    opened_at = clock.now_ns
    sink.process(batch([call()]))
    assert ledger.fresh_as_of_ns == opened_at
    first_pass_ended_at = clock.now_ns
    sink.process(Batch([], {"w1": 10}, 0, 0))
    assert ledger.fresh_as_of_ns == first_pass_ended_at


def test_a_ledger_that_lags_behind_does_not_call_itself_fresher(ledger: Ledger) -> None:
    sink = LedgerSink(ledger, clock=Clock())
    sink.process(batch([call()]))
    fresh = ledger.fresh_as_of_ns
    sink.process(batch([call()], start=10, lag=500))
    assert ledger.fresh_as_of_ns == fresh


def test_a_reopened_ledger_knows_how_fresh_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    ledger = DuckLedger.open(path)
    clock = Clock()
    sink = LedgerSink(ledger, clock=clock)
    sink.process(batch([call()]))
    fresh = ledger.fresh_as_of_ns
    ledger.close()
    again = DuckLedger.open(path)
    assert LedgerSink(again).committed == {"w1": 10}
    assert again.fresh_as_of_ns == fresh is not None
    again.close()


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6), st.booleans()), max_size=8))
@settings(max_examples=30, deadline=None)
def test_however_batches_are_cut_repeated_and_refused_each_call_is_there_once(
    reads: list[tuple[int, int, bool]],
) -> None:
    journal: list[ToolCall] = [call(call_id=f"{i:02d}") for i in range(18)]
    ledger = DuckLedger.open(Path(":memory:"))
    sink = LedgerSink(ledger)
    reached = 0
    for begin, length, forgets in [*reads, (0, 18, False)]:
        start = min(begin, reached)  # a reader never leaves a gap, but may go back
        taken = journal[start : start + length]
        sink.process(batch(taken, start=10 * start))
        reached = max(reached, start + len(taken))
        assert sink.committed == {"w1": 10 * reached} or reached == 0
        if forgets:
            sink = LedgerSink(ledger)
    found = ids(ledger)
    ledger.close()
    assert found == [entry.call_id for entry in journal]
