"""Whatever is written, rotated, read, killed, recovered and deleted in whatever order: each end once, in each sink."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.calls import ToolCall
from gateway.journal import Batch, Janitor, Reader, Writer
from gateway.journal.reader import Positions
from gateway.journal.segments import list_segments
from tests.journal.lines import beat, end, files_of_at_most, folder_of, kill, start


class Sink:
    """Keeps what it took together with its positions, as the ledger does; a restart forgets everything else."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.durable: Positions = {}
        self.ends: Counter[str] = Counter()
        self.restart()

    def restart(self) -> None:
        self._reader = Reader(self._root, ToolCall)
        self._read: Batch | None = None

    def read(self, max_bytes: int) -> None:
        self._read = self._reader.read(self.durable, max_bytes)

    def commit(self) -> None:
        if self._read is not None:
            assert self._read.corrupt == 0
            self.ends.update(event.call_id for event in self._read.events if isinstance(event, ToolCall))
            self.durable, self._read = self._read.positions, None


class JournalMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.janitor = Janitor(self.root, retain_seconds=0)
        self.sinks = {name: Sink(self.root) for name in ("ledger", "otlp")}
        self.started: list[str] = []
        self.open: list[str] = []
        self.writer: Writer

    @initialize()
    def begin(self) -> None:
        self.writer = Writer(self.root, "relay-0", segment_bytes=700)

    @rule(count=st.integers(1, 3))
    def start_calls(self, count: int) -> None:
        for _ in range(count):
            call_id = f"{len(self.started)}"
            self.started.append(call_id)
            self.open.append(call_id)
            self.writer.append(start(call_id))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def end_a_call(self, data: st.DataObject) -> None:
        call_id = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.writer.append(end(call_id))

    @rule()
    def write_something_else(self) -> None:
        self.writer.append(beat())

    @precondition(lambda self: self.open)
    @rule(room=st.integers(0, 400))
    def end_a_call_on_a_full_disk_that_gets_room_again(self, room: int) -> None:
        last = list_segments(folder_of(self.writer, self.root))[-1]
        with files_of_at_most(last.size + room):
            self.writer.append(end(self.open.pop()))
            self.writer.append(beat())
        self.writer.append(beat())

    @rule()
    def rotate(self) -> None:
        self.writer._rotate()

    @rule(name=st.sampled_from(["ledger", "otlp"]), max_bytes=st.integers(1, 3_000))
    def read(self, name: str, max_bytes: int) -> None:
        self.sinks[name].read(max_bytes)

    @rule(name=st.sampled_from(["ledger", "otlp"]))
    def commit(self, name: str) -> None:
        self.sinks[name].commit()

    @rule(name=st.sampled_from(["ledger", "otlp"]))
    def restart_a_sink(self, name: str) -> None:
        self.sinks[name].restart()

    @rule(torn=st.integers(0, 30))
    def kill_the_relay(self, torn: int) -> None:
        last = list_segments(folder_of(self.writer, self.root))[-1]
        kill(self.writer)
        with last.path.open("ab") as file:
            file.write(b'{"event":"end","call_id":"torn'[:torn])
        self.open.clear()
        self.begin()

    @rule()
    def restart_the_relay(self) -> None:
        self.writer.close()
        self.open.clear()
        self.begin()

    @rule()
    def recover(self) -> None:
        self.janitor.recover()

    @rule()
    def collect(self) -> None:
        assert not self.janitor.collect({name: sink.durable for name, sink in self.sinks.items()})

    @invariant()
    def no_end_is_seen_twice(self) -> None:
        for sink in self.sinks.values():
            assert not sink.ends or max(sink.ends.values()) == 1

    def teardown(self) -> None:
        try:
            self.writer.close()
            self.janitor.recover()
            for sink in self.sinks.values():
                for _ in range(5):
                    sink.read(2**20)
                    sink.commit()
                assert sink.ends == dict.fromkeys(self.started, 1)
            self.collect()
            assert list(self.root.iterdir()) == []
        finally:
            shutil.rmtree(self.root)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
