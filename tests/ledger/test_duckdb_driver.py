import subprocess
import sys
from pathlib import Path

from gateway.calls import ToolCall
from gateway.journal import Reader, Writer
from gateway.ledger import Ledger, LedgerSink
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.ledger.queries import Query
from tests.ledger.records import call

ROOT = Path(__file__).parents[2]


def rows_by_id(ledger: Ledger) -> dict[str, int]:
    with ledger.snapshot() as snapshot:
        return dict(snapshot.rows(Query("select call_id, count(*) from calls group by call_id", {})))


def ingest_until_killed(journal: Path, path: Path, *, beyond: int) -> None:
    """Run the ingesting process, and kill it once it has said that it is beyond an offset: then it is amid the next."""
    command = [sys.executable, "-m", "tests.ledger.ingest", str(journal), str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) > beyond:
                break
        process.kill()
    assert process.returncode == -9


def test_after_kill_9_amid_ingestion_no_call_is_lost_and_none_is_there_twice(tmp_path: Path) -> None:
    journal, path = tmp_path / "journal", tmp_path / "ledger.duckdb"
    calls = [call() for _ in range(3000)]
    writer = Writer(journal, "r1", fsync="never", segment_bytes=100_000)
    for record in calls:
        writer.append(record)

    for share in (0.1, 0.3, 0.6):
        ingest_until_killed(journal, path, beyond=int(writer.offset * share))
        ledger = DuckLedger.open(path)
        committed = LedgerSink(ledger).committed
        behind = len(Reader(journal, ToolCall).read(committed, 2**30).entries)
        rows = rows_by_id(ledger)
        ledger.close()
        assert 0 < behind < len(calls), "the kill came too late to be amid anything"
        assert rows == {record.call_id: 1 for record in calls[: len(calls) - behind]}

    ledger = DuckLedger.open(path)
    sink = LedgerSink(ledger)
    sink.process(Reader(journal, ToolCall).read(sink.committed, 2**30))
    rows = rows_by_id(ledger)
    ledger.close()
    writer.close()
    assert rows == {record.call_id: 1 for record in calls}


def test_a_disk_that_was_full_costs_no_call_and_no_restart(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ledger.full_disk", str(tmp_path / "ledger.duckdb")]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "FATAL" in process.stdout, "the disk was not full at a checkpoint, so nothing was shown"
    refused, taken, rows = (int(word) for word in process.stdout.split()[-5::2])
    assert refused >= 3
    assert (taken, rows) == (20, 20 * 500)
