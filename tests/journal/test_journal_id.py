import threading
from pathlib import Path

import pytest

from gateway.calls import Heartbeat
from gateway.errors import StartError
from gateway.journal import Janitor, Reader, Writer, journal_id


def test_processes_that_start_together_get_the_same_id(tmp_path: Path) -> None:
    found: list[str] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(journal_id(tmp_path / "journal"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [entry.name for entry in (tmp_path / "journal").iterdir()] == ["id"], "a draft was left behind"


@pytest.mark.parametrize("content", ["", "\n", "no id", "\0" * 36])
def test_a_damaged_id_is_reported_and_never_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "id").write_text(content)
    with pytest.raises(StartError, match="positions"):
        journal_id(tmp_path)
    assert (tmp_path / "id").read_text() == content


def test_the_reader_and_the_janitor_leave_the_id_alone(tmp_path: Path) -> None:
    identity = journal_id(tmp_path)
    (tmp_path / ".id-1-left-by-a-kill").write_text("a draft\n")
    writer = Writer(tmp_path, "r1", fsync="never")
    writer.close()
    janitor = Janitor(tmp_path, max_bytes=1)
    janitor.recover()
    batch = Reader(tmp_path, Heartbeat).read({}, 2**20)
    janitor.collect({"ledger": batch.positions})
    assert batch.corrupt == 0
    assert journal_id(tmp_path) == identity
