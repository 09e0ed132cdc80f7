"""The relay's end of the journal: one line an event, segments, and a disk that refuses."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.calls import ErrorType, Heartbeat
from gateway.journal import Reader, Writer
from gateway.journal.segments import CLOSED, list_segments, list_writers, try_lock
from tests.journal.lines import beat, end, files_of_at_most, folder_of, ids, kill, no_new_files, start, written

LINE = 250
"""Bytes that a line of these tests has at least."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    made = Writer(tmp_path, "relay-0", segment_bytes=100_000)
    yield made
    made.close()


# -- lines and segments


def test_an_event_is_a_line_at_once(writer: Writer, tmp_path: Path) -> None:
    writer.append(start("a"))
    writer.append(beat(7))
    writer.append(end("a"))
    (lines,) = written(folder_of(writer, tmp_path))
    assert ids(lines) == ["start a", "heartbeat 7", "end a"]
    assert lines[2]["status"] == "success"
    assert writer.offset == list_segments(folder_of(writer, tmp_path))[0].path.stat().st_size


def test_a_full_segment_is_followed_by_one_that_begins_with_the_open_calls(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0", segment_bytes=4 * LINE)
    writer.append(start("long"))
    for number in range(9):
        writer.append(start(f"{number}"))
        writer.append(end(f"{number}"))
    writer.append(beat())
    writer.append(end("long"))
    segments = written(folder_of(writer, tmp_path))
    assert len(segments) > 3
    assert all(ids(lines)[0] == "start long" for lines in segments if lines)
    ends = [line for lines in segments for line in ids(lines) if line.startswith("end")]
    assert ends == [*(f"end {number}" for number in range(9)), "end long"]
    listed = list_segments(folder_of(writer, tmp_path))
    assert [segment.end for segment in listed[:-1]] == [segment.base for segment in listed[1:]]
    assert all(segment.path.stat().st_size == segment.size for segment in listed)
    writer.close()


def test_more_open_calls_than_a_segment_holds_do_not_begin_one_at_every_line(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0", segment_bytes=4 * LINE)
    for number in range(50):
        writer.append(start(f"{number}"))
    before = len(list_segments(folder_of(writer, tmp_path)))
    for _ in range(8):
        writer.append(beat())
    assert len(list_segments(folder_of(writer, tmp_path))) <= before + 1
    writer.close()


def test_an_old_segment_is_followed_by_a_new_one_but_an_empty_one_is_not(tmp_path: Path) -> None:
    clock = Clock()
    writer = Writer(tmp_path, "relay-0", segment_age=60, clock=clock)
    clock.now += 61
    writer.rotate_if_old()
    assert len(list_segments(folder_of(writer, tmp_path))) == 1
    writer.append(beat(1))
    writer.rotate_if_old()
    writer.append(beat(2))
    clock.now += 59
    writer.rotate_if_old()
    writer.append(beat(3))
    clock.now += 1
    writer.rotate_if_old()
    assert [ids(lines) for lines in written(folder_of(writer, tmp_path))] == [
        ["heartbeat 1"],
        ["heartbeat 2", "heartbeat 3"],
        [],
    ]
    writer.close()


# -- its life


def test_two_writers_never_share_a_folder(tmp_path: Path) -> None:
    clock = Clock()
    writers = [Writer(tmp_path, "relay-0", clock=clock) for _ in range(3)]
    assert len({writer.writer_id for writer in writers}) == len(list_writers(tmp_path)) == 3
    for writer in writers:
        assert try_lock(folder_of(writer, tmp_path)) is None
        writer.close()


def test_writers_sort_by_the_time_at_which_they_began(tmp_path: Path) -> None:
    clock = Clock()
    first = Writer(tmp_path, "zebra", clock=clock)
    clock.now += 0.001
    second = Writer(tmp_path, "ant", clock=clock)
    assert [folder.name for folder in list_writers(tmp_path)] == [first.writer_id, second.writer_id]
    first.close()
    second.close()


@pytest.mark.parametrize(("ends", "closed"), [(Writer.close, True), (kill, False)])
def test_the_lock_is_held_for_as_long_as_the_writer_lives(
    tmp_path: Path, ends: Callable[[Writer], None], closed: object
) -> None:
    writer = Writer(tmp_path, "relay-0")
    assert try_lock(folder_of(writer, tmp_path)) is None
    ends(writer)
    lock = try_lock(folder_of(writer, tmp_path))
    assert lock is not None
    os.close(lock)
    assert (folder_of(writer, tmp_path) / CLOSED).exists() is closed


def test_closing_ends_the_open_calls_as_the_gateways_error_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(start("a"))
    writer.append(start("b"))
    writer.append(end("a"))
    writer.close()
    writer.close()
    (lines,) = written(folder_of(writer, tmp_path))
    assert ids(lines) == ["start a", "start b", "end a", "end b"]
    assert lines[3]["error_type"] == ErrorType.GATEWAY_ERROR


def test_it_is_known_where_each_line_ends_whatever_segment_it_is_in(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0", segment_bytes=4 * LINE)
    writer.append(start("long"))
    ends = []
    for number in range(60):
        writer.append(beat(number))
        ends.append(writer.line_end)
    assert len(list_segments(folder_of(writer, tmp_path))) > 2
    assert ends == [entry.offset for entry in Reader(tmp_path, Heartbeat).read({}).entries]
    writer.close()


# -- a disk that refuses


def test_it_is_known_where_lines_will_end_that_wait_for_the_disk(writer: Writer, tmp_path: Path) -> None:
    ends = []
    with files_of_at_most(writer.offset + 100):
        for number in range(5):
            writer.append(beat(number))
            ends.append(writer.line_end)
    writer.append(beat(5))
    ends.append(writer.line_end)
    assert ends == [entry.offset for entry in Reader(tmp_path).read({}).entries]


def test_lines_that_the_disk_refuses_wait_in_order_and_none_is_torn(writer: Writer, tmp_path: Path) -> None:
    folder = folder_of(writer, tmp_path)
    writer.append(start("a"))
    with files_of_at_most(writer.offset + 100):
        writer.append(end("a"))
        for number in range(5):
            writer.append(beat(number))
        assert ids(written(folder)[0]) == ["start a"]
        assert writer.offset == list_segments(folder)[0].size
    writer.append(beat(5))
    assert ids(written(folder)[0]) == ["start a", "end a", *(f"heartbeat {number}" for number in range(6))]
    assert writer.take_dropped() == 0
    assert Reader(tmp_path).read({}).corrupt == 0


def test_of_more_lines_than_are_kept_the_oldest_go_and_are_counted_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0", max_backlog=5)
    with files_of_at_most(0):
        for number in range(8):
            writer.append(beat(number))
    assert writer.take_dropped() == 3
    assert writer.take_dropped() == 0
    writer.append(beat(8))
    assert ids(written(folder_of(writer, tmp_path))[0]) == [f"heartbeat {number}" for number in range(3, 9)]


def test_a_part_of_a_line_that_cannot_be_taken_back_at_once_is_taken_back_before_the_next(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, refusals = os.ftruncate, [OSError(errno.EIO, "refused")] * 2

    def ftruncate(descriptor: int, length: int) -> None:
        if refusals:
            raise refusals.pop()
        real(descriptor, length)

    monkeypatch.setattr(os, "ftruncate", ftruncate)
    writer.append(beat(1))
    with files_of_at_most(writer.offset + 20):
        writer.append(beat(2))
    for number in (3, 4, 5):
        writer.append(beat(number))
    assert refusals == []
    assert ids(written(folder_of(writer, tmp_path))[0]) == [f"heartbeat {number}" for number in range(1, 6)]


def test_a_segment_that_cannot_be_begun_leaves_the_one_before_in_use(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0", segment_bytes=4 * LINE)
    writer.append(start("long"))
    with no_new_files():
        for number in range(60):
            writer.append(beat(number))
    assert len(list_segments(folder_of(writer, tmp_path))) == 1
    writer.append(beat(60))
    first, second = written(folder_of(writer, tmp_path))
    assert ids(first) == ["start long", *(f"heartbeat {number}" for number in range(61))]
    assert ids(second) == ["start long"]
    writer.close()


def test_a_segment_without_room_for_the_open_calls_leaves_nothing_behind(tmp_path: Path) -> None:
    clock = Clock()
    writer = Writer(tmp_path, "relay-0", segment_age=60, clock=clock)
    for number in range(4):
        writer.append(start(f"{number}"))
    clock.now += 61
    with files_of_at_most(2 * LINE):
        writer.rotate_if_old()
    assert sorted(entry.name for entry in folder_of(writer, tmp_path).iterdir()) == ["00000000000000000000.jsonl"]
    with files_of_at_most(writer.offset + 20):
        writer.append(beat(0))
    writer.append(beat(1))
    opened = [f"start {number}" for number in range(4)]
    assert ids(written(folder_of(writer, tmp_path))[0]) == [*opened, "heartbeat 0", "heartbeat 1"]
    writer.rotate_if_old()
    assert len(written(folder_of(writer, tmp_path))) == 2
    writer.close()


def test_no_segment_is_begun_while_lines_wait_for_the_disk(tmp_path: Path) -> None:
    clock = Clock()
    writer = Writer(tmp_path, "relay-0", segment_age=60, clock=clock)
    writer.append(start("a"))
    with files_of_at_most(writer.offset):
        writer.append(end("a"))
        clock.now += 61
        writer.rotate_if_old()  # a new one would not have the call as open, and would not have its end either
    assert [ids(lines) for lines in written(folder_of(writer, tmp_path))] == [["start a"]]
    writer.close()


def test_a_writer_that_closes_with_lines_still_waiting_does_not_say_that_it_is_complete(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(start("a"))
    with files_of_at_most(writer.offset):
        writer.append(end("a"))
        writer.close()
    folder = folder_of(writer, tmp_path)
    assert [entry.name for entry in folder.iterdir()] == ["00000000000000000000.jsonl"]
    lock = try_lock(folder)
    assert lock is not None
    os.close(lock)


# -- bringing it to the disk


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The inodes that were brought to the disk."""
    inodes: list[int] = []
    real = os.fdatasync

    def fdatasync(descriptor: int) -> None:
        inodes.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    return inodes


def inodes(folder: Path) -> list[int]:
    return [segment.path.stat().st_ino for segment in list_segments(folder)]


def test_a_sync_brings_every_segment_since_the_last_one_to_the_disk(tmp_path: Path, synced: list[int]) -> None:
    writer = Writer(tmp_path, "relay-0", segment_bytes=4 * LINE)
    for number in range(60):
        writer.append(beat(number))
    assert synced == []
    writer.sync()
    assert len(synced) > 2
    assert synced == inodes(folder_of(writer, tmp_path))
    synced.clear()
    writer.sync()
    assert synced == inodes(folder_of(writer, tmp_path))[-1:]
    writer.close()


def test_with_fsync_always_a_call_is_on_the_disk_when_its_end_returns(tmp_path: Path, synced: list[int]) -> None:
    writer = Writer(tmp_path, "relay-0", fsync="always", segment_bytes=4 * LINE)
    for number in range(10):
        writer.append(start(f"{number}"))
        writer.append(end(f"{number}"))
        assert set(inodes(folder_of(writer, tmp_path))) == set(synced)
    writer.close()


def test_with_fsync_never_the_kernel_decides(tmp_path: Path, synced: list[int]) -> None:
    writer = Writer(tmp_path, "relay-0", fsync="never", segment_bytes=4 * LINE)
    for number in range(30):
        writer.append(start(f"{number}"))
        writer.append(end(f"{number}"))
        writer.sync()
    writer.close()
    assert synced == []


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_writer_that_is_never_synced_keeps_few_files_open(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0", segment_bytes=LINE)
    before = open_files()
    for number in range(200):
        writer.append(beat(number))
    assert len(list_segments(folder_of(writer, tmp_path))) > 30
    assert open_files() < before + 12
    writer.close()


def test_a_disk_that_cannot_sync_fails_no_call_but_tells_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fdatasync(_: int) -> Any:
        raise OSError(errno.EIO, "refused")

    writer = Writer(tmp_path, "relay-0", fsync="always")
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    writer.append(start("a"))
    writer.append(end("a"))
    assert ids(written(folder_of(writer, tmp_path))[0]) == ["start a", "end a"]
    with pytest.raises(OSError, match="refused"):
        writer.sync()
    writer.close()
