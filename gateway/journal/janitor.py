"""Keeps the journal's folder in order: closes what dead writers left open, deletes what every sink has read."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gateway.calls import CallStart, ToolCall, abandoned
from gateway.journal.reader import Positions, decode_lines
from gateway.journal.segments import CLOSED, Segment, list_segments, list_writers, try_lock


class Janitor:
    """Works for one observer, between its sinks' reads.

    `retain_seconds` keeps segments for readers without an offset of their own (the live stream's replay).
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
        """Close every writer whose process is gone: its open calls end as `gateway_error`. The number of them.

        Closing is appending to the dead writer's last segment under its lock, so that sinks see nothing but lines.
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
        """Delete segments that every sink has read; over `max_bytes`, the oldest whoever has not read them.

        Returns:
            How many calls were so lost, by sink.
        """
        dropped: Counter[str] = Counter()
        kept: list[tuple[Path, Segment, bool]] = []
        now = self._clock()
        for folder in list_writers(self._root):
            closed = (folder / CLOSED).exists()
            segments = list_segments(folder)
            for i, segment in enumerate(segments):
                deletable = closed or i < len(segments) - 1
                read = all(positions.get(folder.name, 0) >= segment.end for positions in sinks.values())
                if deletable and read and _age(segment, now) >= self._retain_seconds:
                    segment.path.unlink(missing_ok=True)
                else:
                    kept.append((folder, segment, deletable))
            self._remove_if_empty(folder, closed=closed)
        excess = sum(segment.size for _, segment, _ in kept) - self._max_bytes
        for folder, segment, deletable in kept:
            if excess <= 0:
                break
            if deletable:
                dropped += self._unread(folder.name, segment, sinks)
                segment.path.unlink(missing_ok=True)
                excess -= segment.size
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
