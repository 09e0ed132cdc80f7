"""The worker between the journal and a sink: nothing that fails ends it, and it does not call taken what is not."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gateway.backoff import Backoff
from gateway.calls import ToolCall
from gateway.errors import LedgerUnavailableError
from gateway.journal import Batch, Reader, Writer
from gateway.observer.sinks import SinkWorker
from tests.observer.events import call


class Keeper:
    """A sink that keeps the ids of the calls that it takes; `refusals` are raised first, one a batch."""

    name = "keeper"

    def __init__(self, *refusals: Exception) -> None:
        self.taken: list[str] = []
        self.refusals = list(refusals)
        self.gate = threading.Event()
        self.gate.set()

    @property
    def committed(self) -> Mapping[str, int]:
        return {}

    def process(self, batch: Batch) -> None:
        if batch.entries:
            assert self.gate.wait(10), "nobody opened the gate"
            if self.refusals:
                raise self.refusals.pop(0)
        self.taken += [event.call_id for event in batch.events if isinstance(event, ToolCall)]


class FailingReader(Reader):
    """A disk that fails the first reads, after which it is as good as new."""

    def __init__(self, root: Path, *failures: OSError) -> None:
        super().__init__(root, ToolCall)
        self.failures = list(failures)

    def read(self, positions: Mapping[str, int], max_bytes: int = 2**20) -> Batch:
        if self.failures:
            raise self.failures.pop(0)
        return super().read(positions, max_bytes)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path, "relay-0")
    writer.append(call(0))
    yield writer
    writer.close()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.005)


def test_a_disk_that_fails_a_read_is_read_again(
    tmp_path: Path, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Keeper()
    worker = SinkWorker(sink, FailingReader(tmp_path, OSError(5, "Input/output error", "x.jsonl")), interval=0.01)
    worker.start()
    wait_for(lambda: sink.taken == ["c0"])
    writer.append(call(1))
    worker.stop(drain_seconds=10)

    assert sink.taken == ["c0", "c1"]
    assert (worker.failures, worker.failing) == (1, False)
    assert "the keeper sink failed and is tried again in 0.2 s: [Errno 5] Input/output error: 'x.jsonl'" in caplog.text


@pytest.mark.usefixtures("writer")
@pytest.mark.parametrize(
    "refusal", [LedgerUnavailableError("away"), OSError("no room"), ValueError("a mistake of ours")]
)
def test_a_batch_that_was_refused_comes_again(tmp_path: Path, refusal: Exception) -> None:
    sink = Keeper(refusal)
    worker = SinkWorker(sink, Reader(tmp_path, ToolCall), interval=0.01)
    worker.start()
    wait_for(lambda: sink.taken == ["c0"])
    worker.stop(drain_seconds=10)

    assert sink.taken == ["c0"]
    assert worker.failures == 1


def test_what_a_sink_has_read_and_not_taken_is_its_lag(tmp_path: Path, writer: Writer) -> None:
    sink = Keeper(LedgerUnavailableError("away"))
    sink.gate.clear()
    worker = SinkWorker(sink, Reader(tmp_path, ToolCall), interval=0.01)
    worker.start()
    wait_for(lambda: worker.lag_bytes > 0)
    taking = (worker.lag_bytes, worker.lag_seconds > 0)
    sink.gate.set()
    wait_for(lambda: worker.failures == 1)
    refused = (worker.lag_bytes, worker.lag_seconds > 0)
    wait_for(lambda: sink.taken == ["c0"])
    worker.stop(drain_seconds=10)

    assert taking == refused == (writer.offset, True)
    assert (worker.lag_bytes, worker.lag_seconds) == (0, 0)


def test_the_end_waits_for_what_was_written_before_it(tmp_path: Path, writer: Writer) -> None:
    sink = Keeper()
    sink.gate.clear()
    worker = SinkWorker(sink, Reader(tmp_path, ToolCall), interval=0.01, max_bytes=1)
    worker.start()
    wait_for(lambda: worker.lag_bytes > 0)
    for number in range(1, 20):
        writer.append(call(number))
    threading.Timer(0.05, sink.gate.set).start()
    worker.stop(drain_seconds=10)

    assert sink.taken == [f"c{number}" for number in range(20)]


def test_a_sink_that_takes_nothing_does_not_hold_up_the_end(tmp_path: Path, writer: Writer) -> None:
    sink = Keeper(*[LedgerUnavailableError("away")] * 100)
    worker = SinkWorker(sink, Reader(tmp_path, ToolCall), interval=0.01, backoff=Backoff(3600, 3600))
    worker.start()
    wait_for(lambda: worker.failures > 0)
    worker.stop(drain_seconds=0.01)

    assert not worker.is_alive()
    assert sink.taken == []
    assert worker.lag_bytes == writer.offset
