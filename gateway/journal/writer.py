"""The relay's end of the journal. Appending is one `write(2)`; nothing else happens on a call's way."""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.calls import CallStart, Event, ToolCall, abandoned
from gateway.errors import JournalError
from gateway.journal.segments import CLOSED, segment_path, try_lock

Fsync = Literal["interval", "always", "never"]

MAX_UNSYNCED: Final = 8
"""Full segments that wait for `sync`. If there is one more, the oldest is left to the kernel."""


class Writer:
    """Appends events to segments of its own folder, which it locks for as long as it lives.

    A disk that refuses a line does not fail the call: at most `max_backlog` lines wait in memory, in order. One more
    drops the oldest, which `take_dropped` counts. Not thread-safe, but for `sync`.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        *,
        segment_bytes: int = 64 * 2**20,
        segment_age: float = 3600.0,
        fsync: Fsync = "interval",
        max_backlog: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._segment_age = segment_age
        self._fsync = fsync
        self._max_backlog = max_backlog
        self._encoder = msgspec.json.Encoder()
        self._open: dict[str, bytes] = {}
        self._backlog: deque[bytes] = deque()
        self._dropped = 0
        self._offset = 0
        self._base = 0
        self._first = 0
        """The offset behind the open calls' start lines that the segment begins with."""
        self.line_end = 0
        """Where the last appended line ends, or will end once the disk takes the backlog."""
        self._began = 0.0
        self._descriptor = -1
        self._torn = False
        self._unsynced: deque[int] = deque()
        """Descriptors of full segments that `sync` has not yet brought to the disk."""
        self._folder = self._make_folder(root, name)
        self.writer_id = self._folder.name
        self._open_segment()

    def _make_folder(self, root: Path, name: str) -> Path:
        """Lock the folder before it has its name: a janitor would take an unlocked one for a dead writer's."""
        root.mkdir(parents=True, exist_ok=True)
        born = int(self._clock() * 1000)
        while (folder := root / f"{born:013d}-{name}-{os.getpid()}").exists():
            born += 1
        hidden = folder.with_name(f".{folder.name}")
        hidden.mkdir(exist_ok=True)
        lock = try_lock(hidden)
        if lock is None:
            raise JournalError(f"{hidden}: another process has locked the folder that this one has just made")
        self._lock = lock
        return hidden.rename(folder)

    @property
    def offset(self) -> int:
        """The bytes written so far."""
        return self._offset

    def start(self, call_id: str, line: bytes) -> None:
        """Write the line of a `CallStart`, newline included."""
        self._open[call_id] = line
        self._append(line)

    def end(self, call_id: str, line: bytes) -> None:
        """Write the line of a `ToolCall`; only then may the response to the client be completed."""
        self._open.pop(call_id, None)
        self._append(line)
        if self._fsync == "always":
            with contextlib.suppress(OSError):  # a call never fails because of its record
                self.sync()

    def append(self, event: Event) -> None:
        """Write any event; a relay writes the lines of its calls itself, by `start` and `end`."""
        line = self._encoder.encode(event) + b"\n"
        if isinstance(event, CallStart):
            self.start(event.call_id, line)
        elif isinstance(event, ToolCall):
            self.end(event.call_id, line)
        else:
            self._append(line)

    def take_dropped(self) -> int:
        """How many lines were lost to a full disk since this was last asked."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def rotate_if_old(self) -> None:
        """Begin a new segment if this one has reached its age. Its size is checked at each line."""
        if self._offset > self._base and self._clock() - self._began >= self._segment_age:
            self._rotate()

    def sync(self) -> None:
        """Bring what was written to the disk. Call it in another thread, as it may take long.

        Raises:
            OSError: the disk refused.
        """
        if self._fsync == "never" or self._descriptor < 0:
            return
        while self._unsynced:
            full = self._unsynced.popleft()
            try:
                os.fdatasync(full)
            finally:
                os.close(full)
            os.fsync(self._lock)  # the folder: the name of the segment behind it
        descriptor = os.dup(self._descriptor)
        try:
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End the open calls as abandoned, and mark the writer as closed. Idempotent.

        If the disk still refuses lines the mark is left out, and a janitor ends the calls whose end line is missing.
        """
        if self._descriptor < 0:
            return
        now_ns = time.time_ns()
        for line in list(self._open.values()):
            self.append(abandoned(msgspec.json.decode(line, type=CallStart), now_ns=now_ns))
        with contextlib.suppress(OSError):
            self.sync()
            if not self._backlog:
                (self._folder / CLOSED).touch()
        for descriptor in (*self._unsynced, self._descriptor, self._lock):
            os.close(descriptor)
        self._unsynced.clear()
        self._descriptor = -1

    def _append(self, line: bytes) -> None:
        if self._backlog or not self._write(line):
            self._retry_later(line)
            self.line_end = self._offset + sum(map(len, self._backlog))
        else:
            self.line_end = self._offset
        if self._offset - self._first >= self._segment_bytes:
            self._rotate()

    def _write(self, line: bytes) -> bool:
        """Whether the whole line is in the file; a part of it is truncated, now or before the next attempt."""
        size = len(line)
        try:
            if not self._torn:
                if os.write(self._descriptor, line) == size:
                    self._offset += size
                    return True
                self._torn = True
            os.ftruncate(self._descriptor, self._offset - self._base)
            self._torn = False
        except OSError:
            return False
        return False

    def _retry_later(self, line: bytes) -> None:
        self._backlog.append(line)
        while self._backlog and self._write(self._backlog[0]):
            self._backlog.popleft()
        if len(self._backlog) > self._max_backlog:
            self._backlog.popleft()
            self._dropped += 1

    def _rotate(self) -> None:
        """Begin a new segment, unless lines wait: an end line among them would lack its start line in the new one."""
        if self._backlog:
            return
        previous, base = self._descriptor, self._base
        try:
            self._base = self._offset
            self._open_segment()
        except OSError:  # the old segment goes on; the next line tries again
            self._base = base
            return
        self._unsynced.append(previous)
        if self._fsync == "never" or len(self._unsynced) > MAX_UNSYNCED:
            os.close(self._unsynced.popleft())

    def _open_segment(self) -> None:
        """Make the segment at `_base`; it gets its name once the open calls' start lines are in it."""
        carried = b"".join(self._open.values())
        final = segment_path(self._folder, self._base)
        draft = final.with_suffix(".draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            if carried and os.write(descriptor, carried) != len(carried):
                raise OSError(f"{draft}: no room for the open calls' start lines")
            draft.rename(final)
        except OSError:
            os.close(descriptor)
            draft.unlink(missing_ok=True)  # a full disk needs the room, and the next draft has another name
            raise
        self._descriptor = descriptor
        self._torn = False
        self._offset = self._first = self._base + len(carried)
        self._began = self._clock()
