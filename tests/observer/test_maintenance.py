import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gateway.calls import CallStart, ToolCall
from gateway.journal import Batch, Janitor, Reader, Writer
from gateway.observer.maintenance import JournalMaintenance
from gateway.observer.sinks import SinkWorker
from tests.observer.events import call, until


class Stubborn:
    """A sink that takes nothing, or everything."""

    def __init__(self, *, takes: bool) -> None:
        self.name = "stubborn"
        self._takes = takes
        self._committed: Mapping[str, int] = {}

    @property
    def committed(self) -> Mapping[str, int]:
        return self._committed

    def process(self, batch: Batch) -> None:
        if self._takes:
            self._committed = batch.positions


@pytest.fixture
def writer(root: Path) -> Iterator[Writer]:
    writer = Writer(root, "relay-0", segment_bytes=4096)
    for number in range(100):
        writer.append(call(number))
    yield writer
    writer.close()


def lines(root: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in root.rglob("*.jsonl"))


async def keep(maintenance: JournalMaintenance, worker: SinkWorker, condition: Callable[[], object]) -> asyncio.Event:
    """Run until the condition holds, or the maintenance stops the process."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(maintenance.run(stop, interval=0.005))
        await until(lambda: stop.is_set() or condition())
        asked = stop.is_set()
        stop.set()
    worker.stop(drain_seconds=0)
    return stop if asked else asyncio.Event()


async def test_what_every_sink_has_read_is_deleted_and_nothing_is_lost(root: Path, writer: Writer) -> None:
    worker = SinkWorker(Stubborn(takes=True), Reader(root, ToolCall), interval=0.005)
    worker.start()
    await until(lambda: worker.sink.committed == {writer.writer_id: writer.offset})
    maintenance = JournalMaintenance(Janitor(root, retain_seconds=0), [worker])

    await keep(maintenance, worker, lambda: lines(root) < 100)

    assert maintenance.dropped == {}


@pytest.mark.usefixtures("writer")
async def test_what_a_sink_lost_because_the_journal_was_full_is_counted(root: Path) -> None:
    worker = SinkWorker(Stubborn(takes=False), Reader(root, ToolCall), interval=0.005)
    worker.start()
    maintenance = JournalMaintenance(Janitor(root, max_bytes=8192), [worker])

    await keep(maintenance, worker, lambda: maintenance.dropped)

    assert maintenance.dropped["stubborn"] == 100 - lines(root) > 0


@pytest.mark.usefixtures("writer")
async def test_a_sink_that_was_away_for_long_gets_to_read_before_a_full_journal_is_cut(root: Path) -> None:
    worker = SinkWorker(Stubborn(takes=True), Reader(root, ToolCall), interval=0.005)
    maintenance = JournalMaintenance(Janitor(root, max_bytes=8192), [worker])
    worker.start()

    await keep(maintenance, worker, lambda: lines(root) < 100)

    assert maintenance.dropped == {}


async def test_the_calls_of_a_relay_that_dies_are_closed(root: Path, writer: Writer) -> None:
    writer.append(CallStart(**{name: getattr(call(100), name) for name in CallStart.__struct_fields__}))
    dead = root / writer.writer_id
    worker = SinkWorker(Stubborn(takes=True), Reader(root, ToolCall), interval=0.005)
    worker.start()
    maintenance = JournalMaintenance(Janitor(root), [worker])
    assert lines(root) == 101

    copy = root / dead.name.replace("relay-0", "relay-1")
    copy.mkdir()
    last = max(dead.glob("*.jsonl"))
    (copy / last.name).write_bytes(last.read_bytes())
    before = lines(root)
    await keep(maintenance, worker, lambda: lines(root) > before)

    assert b'"gateway_error"' in (copy / last.name).read_bytes()
    assert b'"gateway_error"' not in last.read_bytes()


@pytest.mark.usefixtures("writer")
async def test_a_sink_whose_thread_has_ended_stops_the_observer(root: Path) -> None:
    worker = SinkWorker(Stubborn(takes=True), Reader(root, ToolCall), interval=0.005)
    worker.start()
    worker.stop(drain_seconds=5)

    stop = await keep(JournalMaintenance(Janitor(root), [worker]), worker, lambda: False)

    assert stop.is_set()


class FullDisk(Janitor):
    """No writer can be closed, for that takes room; deleting does not."""

    rounds = 0

    def recover(self) -> int:
        self.rounds += 1
        raise OSError(28, "No space left on device", "x.jsonl")


@pytest.mark.usefixtures("writer")
async def test_upkeep_goes_on_after_a_disk_error(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    janitor = FullDisk(root)
    worker = SinkWorker(Stubborn(takes=True), Reader(root, ToolCall), interval=0.005)
    worker.start()

    stop = await keep(JournalMaintenance(janitor, [worker]), worker, lambda: janitor.rounds >= 3)

    assert not stop.is_set()
    assert "the journal cannot be kept in order: [Errno 28] No space left on device: 'x.jsonl'" in caplog.text


@pytest.mark.usefixtures("writer")
async def test_what_has_been_read_is_deleted_though_the_disk_is_too_full_to_close_a_writer(root: Path) -> None:
    worker = SinkWorker(Stubborn(takes=True), Reader(root, ToolCall), interval=0.005)
    worker.start()

    await keep(JournalMaintenance(FullDisk(root, retain_seconds=0), [worker]), worker, lambda: lines(root) < 100)

    assert lines(root) < 100
