"""Ends the calls that dead writers left open, and deletes segments that every sink has read."""

import heapq
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.calls import CallStart, ToolCall, abandoned
from gateway.journal.reader import Positions, decode_lines
from gateway.journal.segments import CLOSED, Segment, list_segments, list_writers, try_lock


class _Kept(NamedTuple):
    """A segment that stays for now; `age` is in seconds since its last line."""

    writer: str
    segment: Segment
    deletable: bool
    read: bool
    age: float


class Janitor:
    """Runs in the observer, between the reads of its sinks.

    `retain_seconds` keeps segments for readers without an offset of their own, such as the replay of the live stream.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int = 4 * 2**30,
        retain_seconds: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._retain_seconds = retain_seconds
        self._clock = clock

    def recover(self) -> int:
        """Close every writer whose process is gone, and return how many calls it ended as `gateway_error`.

        The ends are appended to the dead writer's last segment, under its lock, so that sinks read them like any line.
        """
        closed = 0
        for folder in list_writers(self._root):
            if (folder / CLOSED).exists():
                continue
            lock = try_lock(folder)
            if lock is None:
                continue
            try:
                closed += self._close(folder)
            finally:
                os.close(lock)
        return closed

    def _close(self, folder: Path) -> int:
        segments = list_segments(folder)
        left_open: dict[str, CallStart] = {}
        if segments:
            last = segments[-1].path
            data = last.read_bytes()
            whole = data.rfind(b"\n") + 1
            for event in decode_lines(data[:whole]):
                match event:
                    case CallStart():
                        left_open[event.call_id] = event
                    case ToolCall():
                        left_open.pop(event.call_id, None)
                    case _:
                        pass
            now_ns = int(self._clock() * 1e9)
            ends = b"".join(
                msgspec.json.encode(abandoned(start, now_ns=now_ns)) + b"\n" for start in left_open.values()
            )
            with last.open("r+b") as file:
                file.truncate(whole)
                file.seek(whole)
                file.write(ends)
                file.flush()
                os.fsync(file.fileno())
        (folder / CLOSED).touch()
        return len(left_open)

    def collect(self, sinks: Mapping[str, Positions]) -> Counter[str]:
        """Delete segments that every sink has read.

        Beyond `max_bytes` the oldest are deleted even if a sink has not read them; those that were read go first.

        Returns:
            How many calls each sink lost.
        """
        now = self._clock()
        return self._make_room([self._delete_read(folder, sinks, now) for folder in list_writers(self._root)], sinks)

    def _delete_read(self, folder: Path, sinks: Mapping[str, Positions], now: float) -> list[_Kept]:
        """Delete from the oldest on and without a gap; return the segments that are left."""
        closed = (folder / CLOSED).exists()
        segments = list_segments(folder)
        kept: list[_Kept] = []
        for i, segment in enumerate(segments):
            one = _Kept(
                writer=folder.name,
                segment=segment,
                deletable=closed or i < len(segments) - 1,
                read=all(positions.get(folder.name, 0) >= segment.end for positions in sinks.values()),
                age=_age(segment, now),
            )
            if one.deletable and one.read and one.age >= self._retain_seconds and not kept:
                segment.path.unlink(missing_ok=True)
            else:
                kept.append(one)
        self._remove_if_empty(folder, closed=closed)
        return kept

    def _make_room(self, writers: Sequence[list[_Kept]], sinks: Mapping[str, Positions]) -> Counter[str]:
        dropped: Counter[str] = Counter()
        excess = sum(one.segment.size for kept in writers for one in kept) - self._max_bytes
        for one in heapq.merge(*writers, key=lambda one: (not one.read, -one.age)):
            if excess <= 0:
                break
            if one.deletable:
                dropped += self._unread(one.writer, one.segment, sinks)
                one.segment.path.unlink(missing_ok=True)
                excess -= one.segment.size
        return dropped

    def _unread(self, writer: str, segment: Segment, sinks: Mapping[str, Positions]) -> Counter[str]:
        counts: Counter[str] = Counter()
        data = segment.path.read_bytes()
        for sink, positions in sinks.items():
            begin = max(positions.get(writer, 0) - segment.base, 0)
            counts[sink] = sum(isinstance(event, ToolCall) for event in decode_lines(data[begin:]))
        return +counts

    @staticmethod
    def _remove_if_empty(folder: Path, *, closed: bool) -> None:
        if closed and not list_segments(folder):
            (folder / CLOSED).unlink(missing_ok=True)
            for draft in folder.glob("*.draft"):
                draft.unlink()
            folder.rmdir()


def _age(segment: Segment, now: float) -> float:
    try:
        return now - segment.path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
