"""What only a server can do: be away, be cut off, be shared."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from gateway.calls import ToolCall
from gateway.errors import LedgerUnavailableError, StartError
from gateway.journal import Reader, Writer, journal_id
from gateway.ledger import Ledger, LedgerSink, QueryTimeoutError, open_ledger
from gateway.ledger.postgres_driver import PostgresLedger
from gateway.ledger.queries import Query
from gateway.observer.sinks import SinkWorker
from tests.databases import Cluster
from tests.ledger.proxy import proxy
from tests.ledger.records import batch, call

ROOT = Path(__file__).parents[2]


def rows_by_id(ledger: Ledger) -> dict[str, int]:
    with ledger.snapshot() as snapshot:
        return dict(snapshot.rows(Query("select call_id, count(*) from calls group by call_id", {})))


def tables(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("select relname from pg_class where relispartition and relkind = 'r' order by 1")
        return [name for (name,) in found]


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.02)


class Traffic(threading.Thread):
    """Writes calls into a journal until it is told to stop."""

    def __init__(self, journal: Path) -> None:
        super().__init__(daemon=True)
        self.calls: list[str] = []
        self._writer = Writer(journal, "r1", fsync="never", segment_bytes=20_000)
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(0.002):
            record = call()
            self._writer.append(record)
            self.calls.append(record.call_id)

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._writer.close()


def ingesting(ledger: Ledger, journal: Path) -> SinkWorker:
    worker = SinkWorker(LedgerSink(ledger, journal_id=journal_id(journal)), Reader(journal, ToolCall), interval=0.02)
    worker.start()
    return worker


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_amid_ingestion_loses_nothing_and_doubles_nothing(
    own_postgresql: Cluster, tmp_path: Path, mode: str
) -> None:
    journal = tmp_path / "journal"
    ledger = open_ledger(own_postgresql.database(), tmp_path)
    traffic, worker = Traffic(journal), ingesting(ledger, journal)
    traffic.start()
    for _ in range(2):
        before = len(rows_by_id(ledger))
        wait_for(lambda before=before: len(rows_by_id(ledger)) > before + 50)  # type: ignore[misc]  # bound on purpose
        failures = worker.failures
        own_postgresql.stop(mode)
        wait_for(lambda failures=failures: worker.failures >= failures + 2)  # type: ignore[misc]  # bound on purpose
        with pytest.raises(LedgerUnavailableError, match="does not answer"):
            rows_by_id(ledger)
        own_postgresql.start()
    traffic.stop()
    wait_for(lambda: len(rows_by_id(ledger)) >= len(traffic.calls))
    worker.stop(drain_seconds=10)
    assert rows_by_id(ledger) == dict.fromkeys(traffic.calls, 1)
    ledger.close()


def test_a_server_that_is_cut_off_without_a_word_is_noticed_and_loses_nothing(
    postgresql: Cluster, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    url = postgresql.database()
    with proxy(postgresql.port) as between:
        ledger = PostgresLedger.open(
            url.replace(str(postgresql.port), str(between.port)),
            write_seconds=0.3,
            grace_seconds=0.1,
            check_seconds=0.3,
            connect_seconds=2,
        )
        traffic, worker = Traffic(journal), ingesting(ledger, journal)
        traffic.start()
        for _ in range(3):
            before = len(rows_by_id(ledger))
            wait_for(lambda before=before: len(rows_by_id(ledger)) > before + 50)  # type: ignore[misc]  # bound
            failures = worker.failures
            between.silent.set()
            wait_for(lambda failures=failures: worker.failures > failures)  # type: ignore[misc]  # bound
            between.silent.clear()
        traffic.stop()
        wait_for(lambda: len(rows_by_id(ledger)) >= len(traffic.calls))
        worker.stop(drain_seconds=10)
        assert rows_by_id(ledger) == dict.fromkeys(traffic.calls, 1)
        ledger.close()


def test_a_commit_that_goes_on_after_its_connection_was_lost_is_waited_for(postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.database()
    ledger, lingering = open_ledger(url, tmp_path), open_ledger(url, tmp_path)
    sink, ghost = LedgerSink(ledger, journal_id="j"), LedgerSink(lingering, journal_id="j")
    unanswered = batch([call(call_id="a"), call(call_id="b")])
    assert sink.committed == ghost.committed == {}
    refused: list[LedgerUnavailableError] = []

    def take() -> None:
        try:
            sink.process(unanswered)
        except LedgerUnavailableError as error:
            refused.append(error)

    with lingering.transaction() as transaction:  # what the ghost's absorb does, held up before its commit
        transaction.claim("j")
        transaction.insert([call(call_id="a"), call(call_id="b")])
        transaction.execute(Query("insert into positions values ('j', 'w1', 20, 0)", {}))
        taking = threading.Thread(target=take)
        taking.start()
        taking.join(0.3)
        assert taking.is_alive(), "it did not wait for the claim"
    taking.join()
    assert len(refused) == 1
    sink.process(unanswered)
    assert rows_by_id(ledger) == {"a": 1, "b": 1}
    ledger.close()
    lingering.close()


def test_kill_9_amid_ingestion_loses_nothing_and_doubles_nothing(postgresql: Cluster, tmp_path: Path) -> None:
    journal, url = tmp_path / "journal", postgresql.database()
    calls = [call() for _ in range(3000)]
    writer = Writer(journal, "r1", fsync="never", segment_bytes=100_000)
    for record in calls:
        writer.append(record)
    for share in (0.1, 0.4, 0.7):
        command = [sys.executable, "-m", "tests.ledger.ingest", str(journal), url]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) > writer.offset * share:
                    break
            process.kill()
    writer.close()
    ledger = open_ledger(url, tmp_path)
    sink = LedgerSink(ledger, journal_id=journal_id(journal))
    assert 0 < len(rows_by_id(ledger)) < len(calls), "the kills came too late to be amid anything"
    sink.process(Reader(journal, ToolCall).read(sink.committed, 2**30))
    assert rows_by_id(ledger) == {record.call_id: 1 for record in calls}
    ledger.close()


def test_replicas_share_a_ledger_and_keep_their_places_apart(postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.database()
    ledgers = [open_ledger(url, tmp_path) for _ in range(2)]
    sinks = [LedgerSink(ledger, journal_id=name) for ledger, name in zip(ledgers, "ab", strict=True)]
    for sink, name in zip(sinks, "ab", strict=True):  # writers of the same name, as two hosts may have
        sink.process(batch([call(call_id=f"{name}{i}") for i in range(3)], others={f"old-{name}": 5}))
    for sink in sinks:
        sink.process(batch([call(call_id=f"late-{sink._journal_id}")], start=30))
    assert [dict(sink.committed) for sink in sinks] == [{"w1": 40}, {"w1": 40}]
    assert sorted(rows_by_id(ledgers[0])) == ["a0", "a1", "a2", "b0", "b1", "b2", "late-a", "late-b"]
    for ledger in ledgers:
        ledger.close()


def test_a_journals_id_stays_and_is_nobody_elses(tmp_path: Path) -> None:
    one, other = journal_id(tmp_path / "one"), journal_id(tmp_path / "other")
    assert journal_id(tmp_path / "one") == one != other
    writer = Writer(tmp_path / "one", "r1", fsync="never")
    writer.append(call())
    assert len(Reader(tmp_path / "one", ToolCall).read({}, 2**20).entries) == 1
    writer.close()


def test_each_month_has_a_partition_though_replicas_make_it_at_once(postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.database()
    months = [int(datetime(2026, month, 28, tzinfo=UTC).timestamp()) * 10**9 for month in (1, 2, 12)]
    ledgers = [open_ledger(url, tmp_path) for _ in range(4)]
    barrier = threading.Barrier(len(ledgers))

    def write(number: int) -> None:
        barrier.wait()
        LedgerSink(ledgers[number], journal_id=str(number)).process(batch([call(timestamp_ns=ns) for ns in months]))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(ledgers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(rows_by_id(ledgers[0]).values()) == 12
    assert tables(url) == ["calls_2026_01", "calls_2026_02", "calls_2026_12"]
    for ledger in ledgers:
        ledger.close()


def test_replicas_that_start_at_once_migrate_once(postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.database()
    opened: list[Ledger] = []
    threads = [threading.Thread(target=lambda: opened.append(open_ledger(url, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with opened[0].snapshot() as snapshot:
        versions = snapshot.rows(Query("select version from schema_version order by version", {}))
    assert len(versions) == len(set(versions))
    assert len(opened) == 4
    for ledger in opened:
        ledger.close()


def test_a_server_that_is_away_at_the_start_is_found_later(own_postgresql: Cluster, tmp_path: Path) -> None:
    url = own_postgresql.database()
    own_postgresql.stop()
    ledger = open_ledger(url, tmp_path)
    sink = LedgerSink(ledger)
    with pytest.raises(LedgerUnavailableError, match="does not answer"):
        sink.process(batch([call(call_id="a")]))
    own_postgresql.start()
    sink.process(batch([call(call_id="a")]))
    assert rows_by_id(ledger) == {"a": 1}
    ledger.close()


def test_a_database_that_there_is_not_is_a_mistake_and_shows_no_password(postgresql: Cluster, tmp_path: Path) -> None:
    url = postgresql.url("nowhere").replace("postgres@", "postgres:hidden@")
    with pytest.raises(StartError, match="nowhere") as caught:
        open_ledger(url, tmp_path)
    assert "hidden" not in str(caught.value)


def test_a_query_that_takes_too_long_is_interrupted_and_the_next_one_is_answered(
    postgresql: Cluster, tmp_path: Path
) -> None:
    ledger = open_ledger(postgresql.database(), tmp_path)
    with pytest.raises(QueryTimeoutError, match="shorter range"), ledger.snapshot(seconds=0.1) as snapshot:
        snapshot.rows(Query("select pg_sleep(20)", {}))
    assert rows_by_id(ledger) == {}
    ledger.close()
