"""The observer's end of the journal: whole lines, from a position on, each once."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.calls import CallStart, Event, Heartbeat, ToolCall
from gateway.journal import Reader, Writer, segments
from gateway.journal.reader import Batch, Positions, end_positions
from gateway.journal.segments import Segment, list_segments, list_writers, segment_path
from tests.journal.lines import beat, end, folder_of, kill, start


def pids(batch: Batch) -> list[int]:
    return [event.pid for event in batch.events if isinstance(event, Heartbeat)]


def segmented(root: Path, beats: int, name: str = "relay-0") -> Writer:
    """A writer of many small segments."""
    writer = Writer(root, name, segment_bytes=200)
    for number in range(beats):
        writer.append(beat(number))
    assert len(list_segments(folder_of(writer, root))) > 3
    return writer


def test_events_of_the_wanted_kinds_come_in_order_with_the_offset_behind_them(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(start("a"))
    writer.append(end("a"))
    offset = writer.offset
    writer.append(beat(1))
    batch = Reader(tmp_path, ToolCall).read({})
    assert batch.events == [end("a")]
    assert (batch.entries[0].writer, batch.entries[0].offset) == (writer.writer_id, offset)
    assert batch.positions == {writer.writer_id: writer.offset}
    assert (batch.corrupt, batch.lag_bytes) == (0, 0)
    assert Reader(tmp_path).read({}).events == [start("a"), end("a"), beat(1)]
    assert Reader(tmp_path, CallStart, Heartbeat).read({}).events == [start("a"), beat(1)]
    writer.close()


def test_a_second_read_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(beat(1))
    reader = Reader(tmp_path)
    first = reader.read({})
    assert reader.read(first.positions) == Batch([], first.positions, 0, 0)
    writer.append(beat(2))
    assert pids(reader.read(first.positions)) == [2]
    writer.close()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 900), min_size=1, max_size=20))
def test_any_sequence_of_limits_reads_every_event_once(
    tmp_path_factory: pytest.TempPathFactory, limits: list[int]
) -> None:
    root = tmp_path_factory.mktemp("journal")
    writers = [segmented(root, 20, f"relay-{number}") for number in range(2)]
    size = sum(writer.offset for writer in writers)
    reader = Reader(root)
    positions: Positions = {}
    seen: dict[str, list[Event]] = {writer.writer_id: [] for writer in writers}
    for turn in range(1000):
        batch = reader.read(positions, limits[turn % len(limits)])
        for entry in batch.entries:
            seen[entry.writer].append(entry.event)
        positions = batch.positions
        assert batch.corrupt == 0
        assert batch.lag_bytes == size - sum(positions.values())
        if batch.lag_bytes == 0:
            break
        assert batch.entries
    assert list(seen.values()) == [[beat(number) for number in range(20)]] * 2
    for writer in writers:
        writer.close()


def test_the_limit_holds_for_all_writers_together_and_the_oldest_comes_first(tmp_path: Path) -> None:
    first, second = segmented(tmp_path, 20, "a"), segmented(tmp_path, 20, "b")
    everything = Reader(tmp_path).read({})
    batch = Reader(tmp_path).read({}, max_bytes=everything.entries[11].offset)
    assert batch.entries == everything.entries[:12]
    assert batch.positions[second.writer_id] == 0
    assert batch.lag_bytes == first.offset + second.offset - batch.positions[first.writer_id]
    first.close()
    second.close()


def test_a_line_longer_than_the_limit_is_read_whole(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(end("x" * 5000))
    writer.append(beat(1))
    assert Reader(tmp_path).read({}, max_bytes=10).events == [end("x" * 5000)]
    writer.close()


# -- lines that are not whole, and what is no event


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_line_that_is_not_whole_waits_and_is_no_lag(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(beat(1))
    line = list_segments(folder_of(writer, tmp_path))[0].path.read_bytes()
    path = list_segments(folder_of(writer, tmp_path))[0].path
    append(path, line[:20])
    reader = Reader(tmp_path)
    positions = reader.read({}).positions
    assert positions == {writer.writer_id: len(line)}
    assert reader.read(positions) == Batch([], positions, 0, 0)
    assert reader.read(positions, max_bytes=5) == Batch([], positions, 0, 0)
    append(path, line[20:])
    assert pids(reader.read(positions, max_bytes=5)) == [1]
    kill(writer)


def test_a_torn_line_at_the_end_of_a_segment_that_has_a_successor_is_passed_over(tmp_path: Path) -> None:
    writer = segmented(tmp_path, 20)
    first = list_segments(folder_of(writer, tmp_path))[0]
    append(first.path, b'{"event":"heartbeat","time')
    reader = Reader(tmp_path)
    assert pids(reader.read({})) == list(range(20))
    assert (
        pids(reader.read({}, max_bytes=first.size)) == pids(reader.read({}))[: len(pids(reader.read({}, first.size)))]
    )
    assert reader.read({}).lag_bytes == 0
    writer.close()


def test_a_segment_that_lacks_its_end_is_counted_and_the_next_one_is_read(tmp_path: Path) -> None:
    writer = segmented(tmp_path, 20)
    second = list_segments(folder_of(writer, tmp_path))[1]
    os.truncate(second.path, second.size - 5)
    reader = Reader(tmp_path)
    positions: Positions = {}
    seen, corrupt = [], 0
    for _ in range(5):
        batch = reader.read(positions)
        positions, corrupt = batch.positions, corrupt + batch.corrupt
        seen += pids(batch)
    assert len(seen) == 19
    assert corrupt == 1
    assert positions == {writer.writer_id: writer.offset}
    writer.close()


def test_what_is_no_event_is_counted_and_passed_over(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(beat(1))
    path = list_segments(folder_of(writer, tmp_path))[0].path
    append(
        path, b'garbage\n\n{"event":"heartbeat","pid":"x"}\n{"event":"heartbeat"\n\xff\n{"event":"from the future"}\n'
    )
    append(path, path.read_bytes().splitlines(keepends=True)[0])
    batch = Reader(tmp_path, Heartbeat).read({})
    assert pids(batch) == [1, 1]
    assert batch.corrupt == 5
    assert batch.positions == {writer.writer_id: path.stat().st_size}
    kill(writer)


# -- segments that are gone


def test_a_position_in_a_segment_that_is_gone_goes_on_at_the_oldest_that_is_left(tmp_path: Path) -> None:
    writer = segmented(tmp_path, 20)
    listed = list_segments(folder_of(writer, tmp_path))
    for segment in listed[:2]:
        segment.path.unlink()
    reader = Reader(tmp_path)
    left = pids(reader.read({}))
    assert left == pids(reader.read({writer.writer_id: listed[1].base + 7}))
    assert left == list(range(20 - len(left), 20))
    batch = reader.read({writer.writer_id: listed[2].base})
    assert pids(batch) == left
    assert batch.positions == {writer.writer_id: writer.offset}
    writer.close()


def test_a_segment_that_the_janitor_deletes_while_it_is_to_be_read_is_no_corruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = segmented(tmp_path, 20)
    before = list_segments(folder_of(writer, tmp_path))
    before[0].path.unlink()
    monkeypatch.setattr("gateway.journal.reader.list_segments", lambda _: before)  # as it was a moment ago
    batch = Reader(tmp_path).read({})
    assert batch.corrupt == 0
    assert len(pids(batch)) > 10
    assert batch.positions == {writer.writer_id: writer.offset}
    writer.close()


def test_a_writer_that_is_gone_has_no_position_any_more(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(beat(1))
    positions = {**Reader(tmp_path).read({}).positions, "1794999999999-relay-0-7": 5}
    assert Reader(tmp_path).read(positions).positions == {writer.writer_id: writer.offset}
    assert Reader(tmp_path / "nowhere").read(positions) == Batch([], {}, 0, 0)
    writer.close()


def test_a_position_behind_the_end_waits_for_it(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(beat(1))
    ahead = {writer.writer_id: writer.offset + 1000}
    assert Reader(tmp_path).read(ahead) == Batch([], ahead, 0, 0)
    writer.close()


# -- what is on disk


def test_of_a_segment_that_has_a_successor_everything_up_to_it_counts_whatever_its_size_was_when_listed(
    tmp_path: Path,
) -> None:
    segment_path(tmp_path, 0).write_bytes(b"x" * 60)
    segment_path(tmp_path, 100).write_bytes(b"y" * 5)
    assert list_segments(tmp_path) == [
        Segment(0, 100, segment_path(tmp_path, 0)),
        Segment(100, 5, segment_path(tmp_path, 100)),
    ]


def test_what_is_no_writer_and_no_segment_is_passed_over(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(beat(1))
    folder = folder_of(writer, tmp_path)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".1795000000000-hidden-1").mkdir()
    (tmp_path / "1795000000000-a-file").touch()
    (folder / "00000000000000000999.draft").write_bytes(b"draft\n")
    (folder / "notes.jsonl").write_bytes(b"notes\n")
    assert list_writers(tmp_path) == [folder]
    assert len(segments.list_segments(folder)) == 1
    assert pids(Reader(tmp_path).read({})) == [1]
    writer.close()


def test_the_end_positions_are_behind_the_last_whole_lines(tmp_path: Path) -> None:
    first, second = segmented(tmp_path, 20, "a"), Writer(tmp_path, "b")
    append(list_segments(folder_of(first, tmp_path))[-1].path, b'{"event":')
    ends = end_positions(tmp_path)
    assert ends == {first.writer_id: first.offset, second.writer_id: 0}
    second.append(beat(7))
    assert pids(Reader(tmp_path).read(ends)) == [7]
    kill(first)
    second.close()
