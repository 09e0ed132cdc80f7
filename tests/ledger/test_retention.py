"""What is older than a plan keeps it is deleted, and still counts against the plan."""

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.calls import ErrorType, ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger, LedgerSink, open_ledger, queries
from gateway.ledger.queries import Query, Scope, totals
from gateway.ledger.retention import delete_batch, delete_usage_before
from gateway.months import DAY_NS, day_of, month_of
from tests.ledger.records import batch, call

NOVEMBER = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 10**9
NOON = 12 * 3600 * 10**9
REFUSED = {"status": "error", "error_type": ErrorType.QUOTA_EXCEEDED}


@pytest.fixture
def ledger(ledger_url: str | None, tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(ledger_url, tmp_path)
    yield opened
    opened.close()


def on(day: int, **fields: Any) -> ToolCall:
    """A call at noon of a day in November."""
    return call(timestamp_ns=NOVEMBER + (day - 1) * DAY_NS + NOON, **fields)


def keep(ledger: Ledger, calls: Sequence[ToolCall]) -> None:
    with ledger.transaction() as transaction:
        transaction.insert(calls)


def kept(ledger: Ledger) -> list[str]:
    with ledger.snapshot() as snapshot:
        return [call_id for (call_id,) in snapshot.rows(Query("select call_id from calls order by call_id", {}))]


def in_november(token_id: str | None = None, *, to_ns: int = NOVEMBER + 30 * DAY_NS) -> Scope:
    filters: dict[Any, tuple[str, ...]] = {} if token_id is None else {"token": (token_id,)}
    return Scope(workspace_id="engineering", from_ns=NOVEMBER, to_ns=to_ns, filters=filters)


def used(ledger: Ledger, scope: Scope) -> int:
    [token] = scope.filters.get("token", (None,))
    begin = scope.from_ns
    asked = totals([scope.workspace_id], month_ns=begin, since_ns=[begin] * 3, to_ns=scope.to_ns, token=token)
    with ledger.snapshot() as snapshot:
        return sum(calls for _, calls, *_ in snapshot.rows(asked))


def delete(ledger: Ledger, before_ns: int, *, most: int = 3) -> int:
    """All that is older, in batches."""
    deleted = 0
    while batched := delete_batch(ledger, "engineering", before_ns, most=most):
        deleted += batched
    return deleted


def test_calls_older_than_the_cutoff_go_and_those_at_it_stay(ledger: Ledger) -> None:
    cutoff = NOVEMBER + 10 * DAY_NS
    times = {"older": cutoff - 1, "at": cutoff, "newer": cutoff + 1}
    keep(ledger, [call(call_id=name, timestamp_ns=ns) for name, ns in times.items()])
    assert delete(ledger, cutoff) == 1
    assert kept(ledger) == ["at", "newer"]
    assert delete(ledger, cutoff) == 0


def test_other_workspaces_keep_theirs(ledger: Ledger) -> None:
    keep(ledger, [on(1, call_id="ours"), on(1, call_id="theirs", workspace_id="sales")])
    assert delete(ledger, NOVEMBER + 30 * DAY_NS) == 1
    assert kept(ledger) == ["theirs"]


def test_a_batch_deletes_the_oldest_and_all_of_one_instant(ledger: Ledger) -> None:
    keep(ledger, [on(day, call_id=f"{day}{letter}") for day in (3, 1, 2) for letter in "ab"])
    assert delete_batch(ledger, "engineering", NOVEMBER + 30 * DAY_NS, most=3) == 4
    assert kept(ledger) == ["3a", "3b"]


def test_what_is_used_of_a_plan_does_not_shrink_when_calls_are_deleted(ledger: Ledger) -> None:
    october = call(timestamp_ns=NOVEMBER - 1)
    calls = [on(1), on(1, token_id="bob"), on(1, **REFUSED), on(2), on(3, token_id="bob"), on(9)]
    keep(ledger, [october, *calls])
    scopes = [in_november(), in_november("alice"), in_november("bob"), in_november("nobody")]
    before = [used(ledger, scope) for scope in scopes]
    assert delete(ledger, NOVEMBER + 4 * DAY_NS) == 6
    assert [used(ledger, scope) for scope in scopes] == before == [5, 3, 2, 0]

    with ledger.snapshot() as snapshot:
        month = month_of(NOVEMBER)
        assert snapshot.rows(queries.used_by_every_workspace(month.start_ns, month.end_ns)) == [("engineering", 5)]
        everything = totals(
            ["engineering", "sales"],
            month_ns=month.start_ns,
            since_ns=[NOVEMBER + 8 * DAY_NS] * 3,
            to_ns=month.end_ns,
        )
        assert snapshot.rows(everything) == [("engineering", 5, 1, 1, 1)]
        days = [NOVEMBER + (day - 1) * DAY_NS for day in (1, 2, 3, 9)]
        assert snapshot.rows(queries.used_by_day(in_november())) == list(zip(days, (2, 1, 1, 1), strict=True))
        assert snapshot.rows(queries.used_by_day(in_november("bob"))) == [(days[0], 1), (days[2], 1)]


def test_a_call_that_arrives_late_is_deleted_later_and_counts(ledger: Ledger) -> None:
    keep(ledger, [on(1), on(2)])
    delete(ledger, NOVEMBER + 9 * DAY_NS)
    keep(ledger, [on(1)])
    assert used(ledger, in_november()) == 3
    assert delete(ledger, NOVEMBER + 9 * DAY_NS) == 1
    assert used(ledger, in_november()) == 3


_calls = st.lists(
    st.builds(
        lambda hours, token, refused: call(
            timestamp_ns=NOVEMBER - 2 * DAY_NS + hours * 3600 * 10**9, token_id=token, **(REFUSED if refused else {})
        ),
        st.integers(0, 33 * 24),
        st.sampled_from(["alice", "bob"]),
        st.booleans(),
    ),
    max_size=30,
)


@pytest.mark.slow
@given(calls=_calls, cutoffs=st.lists(st.integers(0, 33 * 24 + 1), max_size=3).map(sorted), most=st.integers(1, 40))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_deleted_when_usage_is_what_it_was(
    ledger: Ledger, calls: list[ToolCall], cutoffs: list[int], most: int
) -> None:
    with ledger.transaction() as transaction:
        transaction.execute(Query("delete from calls", {}))
        transaction.execute(Query("delete from deleted_usage", {}))
        transaction.insert(calls)
    month = [c for c in calls if NOVEMBER <= c.timestamp_ns < NOVEMBER + 30 * DAY_NS and c.error_type is None]
    for hours in cutoffs:
        cutoff = NOVEMBER - 2 * DAY_NS + hours * 3600 * 10**9
        delete(ledger, cutoff, most=most)
        assert kept(ledger) == sorted(c.call_id for c in calls if c.timestamp_ns >= cutoff)
        assert used(ledger, in_november()) == len(month)
        assert used(ledger, in_november("bob")) == sum(c.token_id == "bob" for c in month)
        with ledger.snapshot() as snapshot:
            by_day = dict(snapshot.rows(queries.used_by_day(in_november())))
        days = [day_of(c.timestamp_ns) for c in month]
        assert by_day == {day: days.count(day) for day in days}


def test_counts_of_months_that_nobody_asks_for_are_forgotten(ledger: Ledger) -> None:
    keep(ledger, [call(timestamp_ns=NOVEMBER - 1), on(1)])
    delete(ledger, NOVEMBER + 9 * DAY_NS)
    delete_usage_before(ledger, NOVEMBER)
    with ledger.snapshot() as snapshot:
        assert snapshot.rows(Query("select day_ns, calls from deleted_usage", {})) == [(NOVEMBER, 1)]


def test_a_deletion_that_fails_midway_has_deleted_and_counted_nothing(ledger: Ledger) -> None:
    """As if it were killed: what is not committed did not happen."""
    keep(ledger, [on(1), on(2)])
    with ledger.transaction() as transaction:
        transaction.execute(Query("alter table deleted_usage rename to hidden", {}))
    with pytest.raises(Exception, match="deleted_usage"):
        delete(ledger, NOVEMBER + 9 * DAY_NS)
    with ledger.transaction() as transaction:
        transaction.execute(Query("alter table hidden rename to deleted_usage", {}))
    assert (len(kept(ledger)), used(ledger, in_november())) == (2, 2)
    assert delete(ledger, NOVEMBER + 9 * DAY_NS) == 2
    assert used(ledger, in_november()) == 2


def test_calls_are_taken_in_while_others_are_deleted_and_neither_fails(ledger: Ledger) -> None:
    sink = LedgerSink(ledger)
    keep(ledger, [call(timestamp_ns=NOVEMBER + i) for i in range(2000)])
    failures: list[Exception] = []

    def take_in() -> None:
        try:
            for i in range(40):
                calls = [call(timestamp_ns=NOVEMBER + 9 * DAY_NS + 50 * i + j) for j in range(50)]
                sink.process(batch(calls, start=500 * i))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test must know
            failures.append(error)

    ingestion = threading.Thread(target=take_in)
    ingestion.start()
    deleted = 0
    while ingestion.is_alive():
        deleted += delete_batch(ledger, "engineering", NOVEMBER + DAY_NS, most=50)
        ledger.reclaim(NOVEMBER)
    ingestion.join()
    deleted += delete(ledger, NOVEMBER + DAY_NS, most=500)
    assert failures == []
    assert deleted == len(kept(ledger)) == 2000
    assert used(ledger, in_november()) == 4000


def test_replicas_that_delete_at_once_count_each_call_once(postgresql: Any, tmp_path: Path) -> None:
    url = postgresql.database()
    ledgers = [open_ledger(url, tmp_path) for _ in range(3)]
    keep(ledgers[0], [call(timestamp_ns=NOVEMBER + i, token_id=f"t{i % 7}") for i in range(3000)])
    deleted = [0, 0, 0]

    def work(i: int) -> None:
        deleted[i] = delete(ledgers[i], NOVEMBER + DAY_NS, most=100)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(deleted) == 3000
    assert used(ledgers[0], in_november()) == 3000
    for one in ledgers:
        one.close()


def test_the_file_does_not_grow_when_as_much_is_deleted_as_is_added(tmp_path: Path) -> None:
    """DuckDB gives room back at a checkpoint of its own alone: without it this file is four times as large."""
    ledger = open_ledger(None, tmp_path)
    sizes = []
    for generation in range(12):
        begin = NOVEMBER + generation * DAY_NS
        keep(ledger, [call(timestamp_ns=begin + i, error_message=f"{generation}-{i}" * 20) for i in range(4000)])
        delete(ledger, begin, most=5000)
        assert ledger.reclaim(begin)
        sizes.append((tmp_path / "ledger.duckdb").stat().st_size)
    ledger.close()
    assert max(sizes[4:]) <= max(sizes[:4])


def test_room_is_reclaimed_beside_a_writer_and_never_of_a_closed_ledger(tmp_path: Path) -> None:
    ledger = open_ledger(None, tmp_path)
    with ledger.transaction() as transaction:
        transaction.insert([call(call_id="a")])
        ledger.reclaim(NOVEMBER)
    assert ledger.reclaim(NOVEMBER)
    assert kept(ledger) == ["a"]
    ledger.close()
    with pytest.raises(LedgerUnavailableError):
        ledger.reclaim(NOVEMBER)


def partitions(ledger: Ledger) -> list[str]:
    query = Query("select inhrelid::regclass::text from pg_inherits where inhparent = 'calls'::regclass order by 1", {})
    with ledger.snapshot() as snapshot:
        return [name for (name,) in snapshot.rows(query)]


def test_months_that_are_over_and_empty_lose_their_partition_and_get_it_back_for_a_late_call(
    postgresql: Any, tmp_path: Path
) -> None:
    ledger = open_ledger(postgresql.database(), tmp_path)
    now = NOVEMBER + 2 * DAY_NS
    september, october = call(timestamp_ns=NOVEMBER - 40 * DAY_NS), call(timestamp_ns=NOVEMBER - DAY_NS)
    keep(ledger, [september, october, call(timestamp_ns=now)])
    assert partitions(ledger) == ["calls_2026_09", "calls_2026_10", "calls_2026_11"]

    delete(ledger, NOVEMBER - 5 * DAY_NS)
    assert ledger.reclaim(now)
    assert partitions(ledger) == ["calls_2026_10", "calls_2026_11"]

    delete(ledger, NOVEMBER + 3 * DAY_NS)
    assert ledger.reclaim(now)
    assert partitions(ledger) == ["calls_2026_11"], "the month that runs gets more"

    keep(ledger, [september])
    assert partitions(ledger) == ["calls_2026_09", "calls_2026_11"]
    ledger.close()


def test_a_partition_is_not_waited_for_that_somebody_reads(postgresql: Any, tmp_path: Path) -> None:
    ledger = open_ledger(postgresql.database(), tmp_path)
    keep(ledger, [call(timestamp_ns=NOVEMBER - 40 * DAY_NS)])
    delete(ledger, NOVEMBER)
    with ledger.snapshot() as snapshot:
        snapshot.rows(Query("select count(*) from calls", {}))
        assert not ledger.reclaim(NOVEMBER)
    assert ledger.reclaim(NOVEMBER)
    assert partitions(ledger) == []
    ledger.close()
