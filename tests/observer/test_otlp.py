"""The OTLP sink against a small collector: real HTTP, real protobuf, and a script of how it answers."""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.calls import Heartbeat, Phases, ToolCall
from gateway.config import Config, Otlp, Workspace
from gateway.errors import StartError
from gateway.journal import Reader, Writer
from gateway.observer.otlp import MAX_CALLS, CollectorUnavailableError, OtlpSink
from gateway.observer.sinks import SinkWorker
from tests.observer import events
from tests.observer.otlp_collector import Answer, Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def call(number: int) -> ToolCall:
    phases = Phases(authenticate=0.5, wait=30.0, respond=0.5)
    return events.call(number, timestamp_ns=events.BEGIN + number, phases=phases)


class Bench:
    """A journal, and sinks that start where the one before was killed."""

    def __init__(self, folder: Path, url: str) -> None:
        self.root = folder / "journal"
        self.writer = Writer(self.root, "relay-0")
        self.reader = Reader(self.root, ToolCall)
        self.position = folder / "otlp.position"
        self.now = 1000.0
        self.url = url
        self.sinks: list[OtlpSink] = []

    def sink(self) -> OtlpSink:
        sink = OtlpSink(
            self.position,
            Otlp(endpoint=self.url, headers={"x-scope-orgid": "one"}, timeout=5.0),
            instance="replica-1",
            version="1.2.3",
            clock=lambda: self.now,
        )
        self.sinks.append(sink)
        return sink

    def write(self, *numbers: int) -> None:
        for number in numbers:
            self.writer.append(call(number))

    def feed(self, sink: OtlpSink) -> None:
        sink.process(self.reader.read(sink.committed))

    def saved(self) -> dict[str, int]:
        if not self.position.exists():
            return {}
        return msgspec.json.decode(self.position.read_bytes(), type=dict[str, int])

    def close(self) -> None:
        self.writer.close()
        for sink in self.sinks:
            sink.close()


@pytest.fixture
def bench(tmp_path: Path, collector: Collector) -> Iterator[Bench]:
    bench = Bench(tmp_path, collector.url)
    yield bench
    bench.close()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        threading.Event().wait(0.01)


def test_spans_and_log_records_arrive_and_then_the_position_is_written(bench: Bench, collector: Collector) -> None:
    sink = bench.sink()
    sink.configure(Config(workspaces={"engineering": Workspace(plan="pro")}))
    bench.write(0, 1)

    bench.feed(sink)

    assert collector.traced() == collector.logged() == ["c0", "c1"]
    assert bench.saved() == dict(sink.committed) == {bench.writer.writer_id: bench.writer.offset}
    traces, logs = collector.traces[0].resource_spans[0], collector.logs[0].resource_logs[0]
    expected = {"service.name": "callscope", "service.version": "1.2.3", "service.instance.id": "replica-1"}
    assert {a.key: a.value.string_value for a in traces.resource.attributes} == expected
    assert {a.key: a.value.string_value for a in logs.resource.attributes} == expected
    assert traces.scope_spans[0].scope.name == "callscope"
    assert {a.key: a.value.string_value for a in logs.scope_logs[0].log_records[0].attributes}["mcp.retention"] == "90d"
    assert [h["content-type"] for h in collector.headers] == ["application/x-protobuf"] * 2
    assert [h["content-encoding"] for h in collector.headers] == ["gzip"] * 2
    assert [h["x-scope-orgid"] for h in collector.headers] == ["one"] * 2


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
@pytest.mark.parametrize("answer", [Answer(429), Answer(502), Answer(503), Answer(504), Answer(die=True)])
def test_a_collector_that_is_away_moves_no_position_and_gets_the_calls_later(
    bench: Bench, collector: Collector, path: str, answer: Answer
) -> None:
    sink = bench.sink()
    bench.write(0)
    collector.script[path] = [answer]

    with pytest.raises(CollectorUnavailableError):
        bench.feed(sink)

    assert bench.saved() == {}
    assert sink.committed == {}
    bench.feed(sink)
    assert collector.traced() == collector.logged() == ["c0"]
    assert sink.dropped.total() == 0


def test_a_collector_that_no_one_listens_for_moves_no_position(bench: Bench, collector: Collector) -> None:
    bench.url = "http://127.0.0.1:1"
    sink = bench.sink()
    bench.write(0)

    with pytest.raises(CollectorUnavailableError, match=r"127\.0\.0\.1:1/v1/traces does not respond"):
        bench.feed(sink)

    assert bench.saved() == {}
    assert collector.requests == {}


def test_a_collector_that_asks_to_be_spared_is_not_asked_before_that(bench: Bench, collector: Collector) -> None:
    sink = bench.sink()
    bench.write(0)
    collector.script["/v1/traces"] = [Answer(429, retry_after="20")]
    with pytest.raises(CollectorUnavailableError):
        bench.feed(sink)

    bench.now += 19
    with pytest.raises(CollectorUnavailableError, match="of which 1 s are left"):
        bench.feed(sink)
    assert collector.requests["/v1/traces"] == 1

    bench.now += 1
    bench.feed(sink)
    assert collector.logged() == ["c0"]


def test_a_collector_may_say_the_date_until_which_it_wants_to_be_spared(bench: Bench, collector: Collector) -> None:
    sink = bench.sink()
    bench.write(0)
    collector.script["/v1/traces"] = [Answer(503, retry_after="Thu, 01 Jan 1970 00:17:00 GMT")]  # 1020 s
    with pytest.raises(CollectorUnavailableError):
        bench.feed(sink)

    with pytest.raises(CollectorUnavailableError, match="of which 20 s are left"):
        bench.feed(sink)
    bench.now += 20
    bench.feed(sink)
    assert collector.logged() == ["c0"]


def test_a_collector_that_asks_for_an_hour_is_asked_again_after_a_minute(bench: Bench, collector: Collector) -> None:
    sink = bench.sink()
    bench.write(0)
    collector.script["/v1/traces"] = [Answer(503, retry_after="3600")]
    with pytest.raises(CollectorUnavailableError):
        bench.feed(sink)

    bench.now += 60
    bench.feed(sink)

    assert collector.logged() == ["c0"]


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_refusal_for_good_is_counted_and_the_position_moves_on(
    bench: Bench, collector: Collector, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    sink = bench.sink()
    bench.write(0, 1)
    collector.script["/v1/logs"] = [Answer(status)]

    with caplog.at_level(logging.ERROR):
        bench.feed(sink)

    assert +sink.dropped == {"refused": 2}
    assert collector.traced() == ["c0", "c1"]
    assert bench.saved() == {bench.writer.writer_id: bench.writer.offset}
    assert f"/v1/logs refuses 2 log records: {status}" in caplog.text


def test_what_a_collector_rejects_in_part_is_counted(
    bench: Bench, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    sink = bench.sink()
    bench.write(0, 1)
    collector.script = {"/v1/traces": [Answer(rejected=4)], "/v1/logs": [Answer(rejected=1)]}

    bench.feed(sink)

    assert +sink.dropped == {"rejected": 5}
    assert bench.saved() == {bench.writer.writer_id: bench.writer.offset}
    assert "rejected 4 spans: too old" in caplog.text


def test_every_reason_is_counted_from_0(bench: Bench) -> None:
    assert dict(bench.sink().dropped) == {"rejected": 0, "refused": 0, "too_large": 0}


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
def test_an_export_that_is_too_large_goes_in_halves(bench: Bench, collector: Collector, path: str) -> None:
    sink = bench.sink()
    bench.write(*range(8))
    collector.script[path] = [Answer(413), Answer(413)]

    bench.feed(sink)

    assert collector.traced() == collector.logged() == [f"c{n}" for n in range(8)]
    assert sink.dropped.total() == 0
    sizes = [len(request.resource_logs[0].scope_logs[0].log_records) for request in collector.logs]
    assert sizes == [2, 4, 2]
    assert bench.saved() == {bench.writer.writer_id: bench.writer.offset}


def test_a_call_that_is_too_large_alone_is_lost_alone(
    bench: Bench, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    sink = bench.sink()
    bench.write(0, 1, 2)
    collector.script["/v1/logs"] = [Answer(413), Answer(413)]

    bench.feed(sink)

    assert collector.traced() == ["c0", "c1", "c2"]
    assert collector.logged() == ["c1", "c2"]
    assert +sink.dropped == {"too_large": 1}
    assert "/v1/logs refuses 1 log records: 413" in caplog.text


def test_spans_are_not_sent_again_because_the_log_records_were_refused(bench: Bench, collector: Collector) -> None:
    sink = bench.sink()
    bench.write(0)
    collector.script["/v1/logs"] = [Answer(503), Answer(503)]
    for _ in range(2):
        with pytest.raises(CollectorUnavailableError):
            bench.feed(sink)

    bench.feed(sink)

    assert collector.requests == {"/v1/traces": 1, "/v1/logs": 3}


def test_a_call_that_came_while_log_records_were_refused_has_its_spans_too(bench: Bench, collector: Collector) -> None:
    sink = bench.sink()
    bench.write(0)
    collector.script["/v1/logs"] = [Answer(503)]
    with pytest.raises(CollectorUnavailableError):
        bench.feed(sink)
    bench.write(1)

    bench.feed(sink)

    assert collector.traced() == collector.logged() == ["c0", "c1"]


def test_a_disk_that_refuses_the_position_costs_no_repetition_while_the_process_lives(
    bench: Bench, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    sink = bench.sink()
    bench.position.mkdir()
    bench.write(0)
    bench.feed(sink)
    bench.write(1)
    bench.feed(sink)

    assert collector.traced() == collector.logged() == ["c0", "c1"]
    assert sink.committed == {}
    assert caplog.text.count("position cannot be saved") == 1
    bench.position.rmdir()
    bench.write(2)
    bench.feed(sink)
    assert bench.saved() == dict(sink.committed) == {bench.writer.writer_id: bench.writer.offset}
    assert collector.logged() == ["c0", "c1", "c2"]


def test_a_position_file_that_cannot_be_read_says_so_at_the_start(bench: Bench) -> None:
    bench.position.mkdir()

    with pytest.raises(StartError, match=r"otlp\.position: the collector's position cannot be read: Is a directory"):
        bench.sink()


def test_a_large_batch_goes_in_portions_and_an_acknowledged_one_is_not_repeated(
    bench: Bench, collector: Collector
) -> None:
    sink = bench.sink()
    total = 2 * MAX_CALLS + 1
    bench.write(*range(total))
    batch = bench.reader.read({}, 2**30)
    collector.script["/v1/traces"] = [Answer(), Answer(503)]

    with pytest.raises(CollectorUnavailableError):
        sink.process(batch)
    assert collector.logged() == [f"c{n}" for n in range(MAX_CALLS)]
    sink.process(batch)

    assert collector.traced() == collector.logged() == [f"c{n}" for n in range(total)]
    assert bench.saved() == {bench.writer.writer_id: bench.writer.offset}


def test_a_killed_sink_sends_what_was_not_acknowledged_with_the_same_ids(bench: Bench, collector: Collector) -> None:
    bench.write(0)
    bench.feed(bench.sink())
    bench.write(1)
    collector.script["/v1/logs"] = [Answer(503)]
    killed = bench.sink()
    with pytest.raises(CollectorUnavailableError):
        bench.feed(killed)

    bench.feed(bench.sink())

    assert collector.logged() == ["c0", "c1"]
    assert collector.traced() == ["c0", "c1", "c1"]
    assert collector.traces[1] == collector.traces[2]


def test_a_position_file_that_is_damaged_costs_repetitions_and_no_call(bench: Bench, collector: Collector) -> None:
    bench.write(0)
    bench.feed(bench.sink())
    bench.position.write_bytes(b"\x00" * 40)

    bench.feed(bench.sink())

    assert collector.logged() == ["c0", "c0"]


def test_a_writer_that_is_gone_is_forgotten(bench: Bench) -> None:
    sink = bench.sink()
    bench.write(0)
    bench.feed(sink)
    bench.writer.close()
    shutil.rmtree(bench.root / bench.writer.writer_id)
    bench.writer = Writer(bench.root, "relay-1")
    bench.write(1)
    bench.feed(sink)
    bench.write(2)
    bench.feed(sink)

    assert bench.saved() == dict(sink.committed) == {bench.writer.writer_id: bench.writer.offset}
    assert sink._acknowledged.keys() == sink._traced.keys() == {bench.writer.writer_id}


def test_heartbeats_alone_move_the_position_seldom(bench: Bench) -> None:
    sink = bench.sink()
    bench.write(0)
    bench.feed(sink)
    after_call = bench.saved()
    bench.writer.append(Heartbeat(timestamp_ns=1, replica="r", pid=1))

    bench.feed(sink)
    assert bench.saved() == after_call

    bench.now += 10
    bench.feed(sink)
    assert bench.saved() == {bench.writer.writer_id: bench.writer.offset}


def test_every_call_is_delivered_through_refusals_and_hang_ups(bench: Bench, collector: Collector) -> None:
    collector.script["/v1/traces"] = [Answer(503), Answer(), Answer(die=True)]
    collector.script["/v1/logs"] = [Answer(die=True), Answer(429)]
    worker = SinkWorker(bench.sink(), bench.reader, interval=0.01, max_bytes=2**12)
    worker.start()

    for number in range(40):
        bench.write(number)
    wait_for(lambda: len(set(collector.logged())) == 40)
    worker.stop(drain_seconds=5)

    assert set(collector.traced()) == set(collector.logged()) == {f"c{n}" for n in range(40)}
    assert worker.failures == 4
    assert bench.saved() == {bench.writer.writer_id: bench.writer.offset}
