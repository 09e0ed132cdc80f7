"""What the metrics sink keeps over a restart: everything, whenever it is killed."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.calls import Heartbeat, Operation, ToolCall
from gateway.config import Metrics
from gateway.errors import StartError
from gateway.journal import Reader, Writer
from gateway.observer import metrics_state
from gateway.observer.metrics import MetricsSink
from tests.observer.events import (
    Clock,
    batch,
    beat,
    call,
    named,
    read_all,
    samples,
    sink_at,
    value,
    write_all,
)

NEVER = 1e9
TEN = Metrics(birth_interval=10)


def reader(root: Path) -> Reader:
    return Reader(root, ToolCall, Operation, Heartbeat)


@pytest.mark.parametrize("absorbed_after_the_save", [0, 1, 3])
def test_a_sink_that_is_killed_counts_every_call_once_when_it_is_back(
    tmp_path: Path, absorbed_after_the_save: int
) -> None:
    calls = [call(i, token_id=f"t{i % 3}", duration_ms=float(i)) for i in range(60)]
    writer = Writer(tmp_path / "journal", "relay-0")
    write_all(writer, calls)
    journal = reader(tmp_path / "journal")
    undisturbed = sink_at(tmp_path / "undisturbed", Clock())
    read_all(undisturbed, journal)

    killed = sink_at(tmp_path, Clock(), save_interval=NEVER)
    positions: dict[str, int] = {}
    for portion in range(3 + absorbed_after_the_save):
        if portion == 3:
            killed.save()
        found = journal.read(positions, max_bytes=4000)
        assert found.entries
        killed.process(found)
        positions = found.positions
    if absorbed_after_the_save == 0:
        killed.save()
    again = sink_at(tmp_path, Clock())
    read_all(again, journal, max_bytes=4000)
    writer.close()

    assert value(again, "mcp_gateway_tool_calls_total", token="t0") == 20
    assert samples(again) == samples(undisturbed)


def test_without_a_kill_nothing_is_read_again(tmp_path: Path) -> None:
    first = sink_at(tmp_path, Clock(), save_interval=NEVER)
    first.process(batch(call(), call()))
    first.close()

    second = sink_at(tmp_path, Clock())
    second.process(batch(call(2), start=200))

    assert value(second, "mcp_gateway_tool_calls_total") == 3


def test_committed_is_what_is_saved_and_it_is_saved_at_the_interval(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock, save_interval=5)
    sink.process(batch(call()))
    assert sink.committed == {}

    clock.now += 5
    sink.process(batch(call(1), start=100))

    assert sink.committed == {"w": 200}
    assert sink_at(tmp_path, clock).committed == {"w": 200}


def test_a_clock_that_is_set_back_stops_no_saving(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock, save_interval=5)
    clock.now -= 3600
    sink.process(batch(call()))

    assert sink.committed == {"w": 100}


def test_a_series_that_was_new_when_its_process_ended_is_new_again(tmp_path: Path) -> None:
    clock = Clock()
    ended = sink_at(tmp_path, clock, TEN, save_interval=5)
    ended.process(batch(call()))
    clock.now += 8
    ended.process(batch(start=100))
    ended.close()
    clock.now += 12
    again = sink_at(tmp_path, clock, TEN)
    again.process(batch(start=100))
    first = value(again, "mcp_gateway_tool_calls_total")
    clock.now += 10

    assert (first, value(again, "mcp_gateway_tool_calls_total")) == (0, 1)


def test_a_series_is_saved_before_it_is_established_however_short_the_birth_interval(tmp_path: Path) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock, Metrics(birth_interval=2), save_interval=5)
    sink.process(batch(call()))
    clock.now += 1
    sink.process(batch(start=100))

    assert sink.committed == {"w": 100}


def test_what_is_exposed_never_goes_back_while_the_journal_is_read_again(tmp_path: Path) -> None:
    killed = sink_at(tmp_path, Clock(), save_interval=NEVER)
    killed.process(batch(call()))
    killed.save()
    killed.process(batch(call(1), call(2), start=100))
    assert value(killed, "mcp_gateway_tool_calls_total") == 3

    again = sink_at(tmp_path, Clock())
    restored = value(again, "mcp_gateway_tool_calls_total")
    again.process(batch(call(1), start=100, lag_bytes=100))
    half_way = value(again, "mcp_gateway_tool_calls_total")
    again.process(batch(call(2), start=200))

    assert (restored, half_way) == (None, None)
    assert value(again, "mcp_gateway_tool_calls_total") == 3


def test_a_sink_that_cannot_catch_up_is_exposed_all_the_same(tmp_path: Path) -> None:
    clock = Clock()
    killed = sink_at(tmp_path, clock)
    killed.process(batch(call()))
    killed.save()

    again = sink_at(tmp_path, clock)
    again.process(batch(call(1), start=100, lag_bytes=10**9))
    clock.now += 30

    assert value(again, "mcp_gateway_tool_calls_total") == 2


# -- new series


def test_an_established_series_is_not_new_again(tmp_path: Path) -> None:
    clock = Clock()
    first = sink_at(tmp_path, clock, TEN)
    first.process(batch(call()))
    clock.now += 10
    assert value(first, "mcp_gateway_tool_calls_total") == 1
    first.close()

    second = sink_at(tmp_path, clock, TEN)
    second.process(batch(start=100))

    assert value(second, "mcp_gateway_tool_calls_total") == 1


def test_a_series_that_may_have_been_seen_with_its_value_after_the_last_save_is_not_new_again(
    tmp_path: Path,
) -> None:
    clock = Clock()
    killed = sink_at(tmp_path, clock, TEN, save_interval=5)
    killed.process(batch(call()))
    clock.now += 6
    killed.save()
    clock.now += 4
    assert value(killed, "mcp_gateway_tool_calls_total") == 1

    again = sink_at(tmp_path, clock, TEN)
    again.process(batch(start=100))

    assert value(again, "mcp_gateway_tool_calls_total") == 1


def test_a_series_that_nobody_can_have_seen_with_its_value_is_new_again_after_the_pause(tmp_path: Path) -> None:
    clock = Clock()
    closed = sink_at(tmp_path, clock, TEN)
    closed.process(batch(call()))
    clock.now += 9
    closed.close()
    clock.now += 3600

    again = sink_at(tmp_path, clock, TEN)
    again.process(batch(start=100))
    at_first = value(again, "mcp_gateway_tool_calls_total")
    clock.now += 10

    assert at_first == 0
    assert value(again, "mcp_gateway_tool_calls_total") == 1


# -- what else is kept, and what goes wrong


def test_everything_that_was_counted_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    within = Metrics(birth_interval=0, max_series=2)
    first = sink_at(tmp_path, clock, within)
    first.process(
        batch(call(), call(token_id="bob"), call(token_id="carol"), beat(clock, rejected={"x": 2}, dropped=1))
    )
    before = {key: number for key, number in samples(first).items() if key[0] != "mcp_gateway_event_loop_lag_seconds"}
    first.close()

    second = sink_at(tmp_path, clock, within)
    second.process(batch(start=400))

    assert samples(second) == before
    assert value(second, "mcp_gateway_series_overflow_total", metric="mcp_gateway_tool_calls_total") == 2


def test_exemplars_are_kept(tmp_path: Path) -> None:
    first = sink_at(tmp_path, Clock())
    first.process(batch(call(41)))
    first.close()

    second = sink_at(tmp_path, Clock())
    second.process(batch(start=100))

    assert exemplars(second)
    assert exemplars(second) == exemplars(first)
    assert {exemplar.labels["trace_id"] for exemplar in exemplars(second)} == {f"{42:032x}"}


def test_a_state_of_a_version_without_these_exemplars_is_taken_over(tmp_path: Path) -> None:
    first = sink_at(tmp_path, Clock())
    first.process(batch(call(41)))
    for histograms in first._call_metrics.histograms.values():
        for series in histograms.series.values():
            series.exemplars = []
    first.close()

    second = sink_at(tmp_path, Clock())
    second.process(batch(call(42), start=100))

    assert value(second, "mcp_gateway_overhead_seconds_count") == 2
    assert {exemplar.labels["trace_id"] for exemplar in exemplars(second)} == {f"{43:032x}"}


def exemplars(sink: MetricsSink) -> list[Any]:
    """All that the sink exposes."""
    samples = (sample for metric in sink.collect() for sample in metric.samples)
    return [sample.exemplar for sample in samples if sample.exemplar is not None]


@pytest.mark.parametrize("content", [b"", b"\xff\x00 no state", b"\x85\xa7version\x01"])
def test_a_state_that_cannot_be_decoded_is_set_aside_said_and_counted(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "metrics.state").write_bytes(content)

    sink = sink_at(tmp_path, Clock())

    assert sink.committed == {}
    assert (tmp_path / "metrics.state.corrupt").read_bytes() == content
    assert not (tmp_path / "metrics.state").exists()
    assert "the counters start from 0" in caplog.text
    assert value(sink, "mcp_gateway_records_dropped_total", sink="metrics", reason="corrupt_state") == 1


def test_the_state_of_another_version_is_set_aside(tmp_path: Path) -> None:
    first = sink_at(tmp_path, Clock())
    first.process(batch(call()))
    first.close()
    state = msgspec.msgpack.decode((tmp_path / "metrics.state").read_bytes())
    state["version"] += 1
    (tmp_path / "metrics.state").write_bytes(msgspec.msgpack.encode(state))

    assert sink_at(tmp_path, Clock()).committed == {}
    assert (tmp_path / "metrics.state.corrupt").exists()


def test_a_state_that_cannot_be_read_is_no_start_and_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "metrics.state").mkdir()

    with pytest.raises(StartError, match="cannot be read"):
        sink_at(tmp_path, Clock())

    assert (tmp_path / "metrics.state").exists()


def test_a_disk_that_refuses_the_state_is_said_once_and_the_journal_stays_unread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    sink = sink_at(tmp_path, clock)
    (tmp_path / "metrics.state").mkdir()
    for i in range(3):
        clock.now += 5
        sink.process(batch(call(i), start=100 * i))

    assert sink.committed == {}
    assert caplog.text.count("cannot be saved") == 1
    assert value(sink, "mcp_gateway_tool_calls_total") == 3

    (tmp_path / "metrics.state").rmdir()
    clock.now += 5
    sink.process(batch(start=300))
    assert sink.committed == {"w": 300}


def test_series_of_other_buckets_start_from_0_and_the_rest_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = sink_at(tmp_path, Clock())
    first.process(batch(call()))
    first.close()
    name, path = "mcp_gateway_tool_call_duration_seconds", tmp_path / "metrics.state"
    state = msgspec.msgpack.decode(path.read_bytes(), type=metrics_state.MetricsState)
    saved = state.histograms[name]
    state.histograms[name] = metrics_state.SavedFamily(saved.labels, saved.series, (1.0, 2.0))
    path.write_bytes(msgspec.msgpack.encode(state))

    second = sink_at(tmp_path, Clock())
    second.process(batch(start=100))

    assert named(second, f"{name}_count") == []
    assert value(second, "mcp_gateway_tool_calls_total") == 1
    assert [record.message.partition(" ")[0] for record in caplog.records] == [name]
