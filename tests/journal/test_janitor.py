"""Dead writers are closed, what every sink has read is deleted, and nothing is lost without a count."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gateway.calls import ErrorType, ToolCall
from gateway.journal import Janitor, Reader, Writer
from gateway.journal.segments import CLOSED, list_segments, list_writers
from tests.journal.lines import beat, end, files_of_at_most, folder_of, ids, kill, start, written


def ends(root: Path) -> Counter[str]:
    """How often each call's end stands in the journal."""
    return Counter(
        event.call_id for event in Reader(root, ToolCall).read({}, 2**30).events if isinstance(event, ToolCall)
    )


def read(writer: Writer, offset: int | None = None) -> dict[str, int]:
    """The positions of a sink that has read a writer up to an offset, or all of it."""
    return {writer.writer_id: writer.offset if offset is None else offset}


def calls(root: Path, count: int, name: str = "relay-0") -> Writer:
    """A writer with some finished calls over several segments."""
    writer = Writer(root, name, segment_bytes=2_000)
    for number in range(count):
        writer.append(end(f"{name} {number}"))
    return writer


# -- dead writers


def test_the_calls_that_a_killed_relay_left_open_are_closed_exactly_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.journal.dying_writer", str(tmp_path), "50"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        folder = tmp_path / relay.stdout.readline().strip()
        janitor = Janitor(tmp_path)
        assert janitor.recover() == 0  # it lives
        relay.kill()
    with list_segments(folder)[-1].path.open("ab") as file:
        file.write(b'{"event":"end","call_id":"torn')
    assert janitor.recover() == 2
    assert janitor.recover() == 0
    assert Janitor(tmp_path).recover() == 0
    expected = {*(f"{number}" for number in range(50)), "open from the beginning", "open at the end"}
    assert ends(tmp_path) == dict.fromkeys(expected, 1)
    batch = Reader(tmp_path, ToolCall).read({}, 2**30)
    assert (batch.corrupt, batch.lag_bytes) == (0, 0)
    closed = [event for event in batch.events if isinstance(event, ToolCall) and event.call_id.startswith("open")]
    assert [(call.status, call.error_type) for call in closed] == [("error", ErrorType.GATEWAY_ERROR)] * 2


def test_a_writer_that_lives_is_left_alone(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(start("a"))
    assert Janitor(tmp_path).recover() == 0
    assert not (folder_of(writer, tmp_path) / CLOSED).exists()
    writer.append(end("a"))
    assert ends(tmp_path) == {"a": 1}
    writer.close()


def test_the_last_segment_alone_tells_what_was_open(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0", segment_bytes=1_000)
    writer.append(start("long"))
    for number in range(20):
        writer.append(end(f"{number}"))
    kill(writer)
    for segment in list_segments(folder_of(writer, tmp_path))[:-1]:
        segment.path.unlink()
    assert Janitor(tmp_path).recover() == 1
    assert ends(tmp_path)["long"] == 1


def test_a_janitor_that_died_before_it_had_said_so_closes_nothing_twice(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(start("a"))
    kill(writer)
    assert Janitor(tmp_path).recover() == 1
    (folder_of(writer, tmp_path) / CLOSED).unlink()
    assert Janitor(tmp_path).recover() == 0
    assert ends(tmp_path) == {"a": 1}


def test_a_janitor_that_died_in_the_middle_of_a_line_begins_it_anew(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(start("a"))
    writer.append(start("b"))
    kill(writer)
    janitor = Janitor(tmp_path)
    with files_of_at_most(writer.offset + 500), pytest.raises(OSError, match="too large"):
        janitor.recover()
    assert janitor.recover() + ends(tmp_path).total() >= 2
    assert ends(tmp_path) == {"a": 1, "b": 1}


def test_a_writer_that_could_not_write_its_last_lines_is_closed_like_a_dead_one(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    writer.append(start("a"))
    with files_of_at_most(writer.offset):
        writer.append(end("a"))
        writer.close()
    assert Janitor(tmp_path).recover() == 1
    assert ends(tmp_path) == {"a": 1}


def test_a_writer_that_died_before_its_first_line_leaves_nothing(tmp_path: Path) -> None:
    kill(Writer(tmp_path, "relay-0"))
    empty = Writer(tmp_path, "relay-1")
    kill(empty)
    for segment in list_segments(folder_of(empty, tmp_path)):
        segment.path.rename(segment.path.with_suffix(".draft"))  # it died while it made its first segment
    janitor = Janitor(tmp_path, retain_seconds=0)
    assert janitor.recover() == 0
    assert janitor.collect({"ledger": {}}) == {}
    assert list_writers(tmp_path) == []


# -- deleting


def test_a_segment_goes_when_every_sink_has_read_it_and_the_writers_last_one_stays(tmp_path: Path) -> None:
    writer = calls(tmp_path, 30)
    listed = list_segments(folder_of(writer, tmp_path))
    janitor = Janitor(tmp_path, retain_seconds=0)
    half_read = {"ledger": read(writer), "otlp": read(writer, listed[2].base)}
    assert janitor.collect(half_read) == {}
    assert list_segments(folder_of(writer, tmp_path)) == listed[2:]
    assert janitor.collect({"ledger": read(writer), "otlp": {}}) == {}
    assert list_segments(folder_of(writer, tmp_path)) == listed[2:]
    assert janitor.collect({"ledger": read(writer), "otlp": read(writer)}) == {}
    assert list_segments(folder_of(writer, tmp_path)) == listed[-1:]
    writer.append(beat())
    writer.close()


def test_a_segment_that_was_read_stays_for_those_who_look_back(tmp_path: Path) -> None:
    writer = calls(tmp_path, 30)
    folder = folder_of(writer, tmp_path)
    listed = list_segments(folder)
    now = listed[0].path.stat().st_mtime
    janitor = Janitor(tmp_path, retain_seconds=600, clock=lambda: now)
    os.utime(listed[0].path, (now, now - 601))
    os.utime(listed[1].path, (now, now - 599))
    janitor.collect({"ledger": read(writer)})
    assert list_segments(folder) == listed[1:]
    writer.close()


def test_a_clock_that_was_set_back_makes_no_gap(tmp_path: Path) -> None:
    writer = calls(tmp_path, 30)
    folder = folder_of(writer, tmp_path)
    listed = list_segments(folder)
    now = listed[0].path.stat().st_mtime
    for age, segment in ((300, listed[0]), (700, listed[1])):
        os.utime(segment.path, (now, now - age))
    Janitor(tmp_path, retain_seconds=600, clock=lambda: now).collect({"ledger": read(writer)})
    assert list_segments(folder) == listed
    Janitor(tmp_path, max_bytes=writer.offset - 1, clock=lambda: now).collect({"otlp": {}})
    assert list_segments(folder) == listed[1:]
    writer.close()


def test_a_closed_writer_that_was_read_leaves_no_folder(tmp_path: Path) -> None:
    writer = calls(tmp_path, 10)
    writer.append(start("open"))
    offset = writer.offset
    kill(writer)
    janitor = Janitor(tmp_path, retain_seconds=0)
    janitor.recover()
    position = Reader(tmp_path).read({}).positions
    assert position[writer.writer_id] > offset
    janitor.collect({"ledger": {writer.writer_id: offset}})
    assert len(list_segments(folder_of(writer, tmp_path))) == 1  # the end that the janitor wrote is not read
    janitor.collect({"ledger": position})
    assert list(tmp_path.iterdir()) == []


def test_a_torn_line_at_the_end_of_a_full_segment_keeps_no_one_from_deleting_it(tmp_path: Path) -> None:
    writer = calls(tmp_path, 30)
    first = list_segments(folder_of(writer, tmp_path))[0]
    with first.path.open("ab") as file:
        file.write(b'{"event":')
    positions = Reader(tmp_path).read({}, first.size).positions
    assert positions == {writer.writer_id: first.end}
    Janitor(tmp_path, retain_seconds=0).collect({"ledger": positions})
    assert not first.path.exists()
    writer.close()


# -- too much of it


def test_over_max_bytes_the_oldest_goes_and_what_each_sink_so_loses_is_counted(tmp_path: Path) -> None:
    first, second = calls(tmp_path, 30, "a"), calls(tmp_path, 30, "b")
    listed = list_segments(folder_of(first, tmp_path))
    room = first.offset + second.offset - listed[2].base + 10
    lines = [
        len([line for line in segment if line["event"] == "end"]) for segment in written(folder_of(first, tmp_path))
    ]
    inside = 2 * (listed[0].size // lines[0])
    sinks = {
        "ledger": read(first) | read(second),
        "metrics": read(first, inside),
        "otlp": {},
    }
    janitor = Janitor(tmp_path, max_bytes=room)
    assert janitor.collect(sinks) == {"otlp": lines[0] + lines[1], "metrics": lines[0] + lines[1] - 2}
    assert list_segments(folder_of(first, tmp_path)) == listed[2:]
    assert len(list_segments(folder_of(second, tmp_path))) > 3
    assert janitor.collect(sinks) == {}
    for sink in ("metrics", "otlp"):
        left = [entry.event for entry in Reader(tmp_path, ToolCall).read(sinks[sink]).entries]
        assert len(left) == 60 - lines[0] - lines[1]
    first.close()
    second.close()


def test_over_max_bytes_what_was_read_goes_before_what_was_not(tmp_path: Path) -> None:
    dead, living = calls(tmp_path, 10, "dead"), calls(tmp_path, 10, "living")
    dead.close()
    unread, read_already = (list_segments(folder_of(one, tmp_path)) for one in (dead, living))
    room = dead.offset + living.offset - 1
    otlp = read(living)

    assert Janitor(tmp_path, max_bytes=room).collect({"otlp": otlp}) == {}
    assert list_segments(folder_of(dead, tmp_path)) == unread
    assert list_segments(folder_of(living, tmp_path)) == read_already[1:]
    living.close()


def test_over_max_bytes_the_oldest_of_all_writers_goes_first(tmp_path: Path) -> None:
    long_lived, later = calls(tmp_path, 10, "a"), calls(tmp_path, 10, "b")
    of_both = [list_segments(folder_of(one, tmp_path)) for one in (long_lived, later)]
    now = of_both[0][0].path.stat().st_mtime
    for age, segment in ((30, of_both[0][0]), (10, of_both[0][1]), (20, of_both[1][0])):
        os.utime(segment.path, (now, now - age))
    room = long_lived.offset + later.offset - of_both[0][0].size - 1
    Janitor(tmp_path, max_bytes=room, clock=lambda: now).collect({"otlp": {}})

    assert list_segments(folder_of(long_lived, tmp_path)) == of_both[0][1:]
    assert list_segments(folder_of(later, tmp_path)) == of_both[1][1:]
    long_lived.close()
    later.close()


def test_a_living_writers_last_segment_stays_however_large_it_is(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "relay-0")
    for number in range(30):
        writer.append(end(f"{number}"))
    assert Janitor(tmp_path, max_bytes=100).collect({"otlp": {}}) == {}
    assert ends(tmp_path).total() == 30
    writer.close()
    assert Janitor(tmp_path, max_bytes=100).collect({"otlp": {}, "ledger": read(writer)}) == {"otlp": 30}
    assert ends(tmp_path).total() == 0


def test_a_line_that_is_no_event_is_no_call_that_is_lost(tmp_path: Path) -> None:
    writer = calls(tmp_path, 30)
    first = list_segments(folder_of(writer, tmp_path))[0]
    count = len(written(folder_of(writer, tmp_path))[0])
    data = first.path.read_bytes()
    first.path.write_bytes(b"x" + data[1:])
    assert Janitor(tmp_path, max_bytes=writer.offset - 10).collect({"otlp": {}}) == {"otlp": count - 1}
    assert ids(written(folder_of(writer, tmp_path))[0])[0].startswith("end")
    writer.close()


def test_what_is_not_the_journals_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "notes.txt").touch()
    janitor = Janitor(tmp_path, max_bytes=0, retain_seconds=0)
    assert janitor.recover() == 0
    assert janitor.collect({"ledger": {}}) == {}
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["lost+found", "notes.txt"]
