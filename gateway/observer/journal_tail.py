"""One reader's place in the journal: the calls that it wants, as they come, each with the cursor right behind it.

Everything here blocks on files: it is for a worker thread.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from gateway.calls import ToolCall
from gateway.journal import Entry, Reader, journal_id
from gateway.journal.reader import Positions, end_positions
from gateway.journal.segments import CLOSED, list_segments, list_writers
from gateway.observer import cursor

READ_BYTES: Final = 256 * 2**10
REPLAY_WINDOWS: Final = (2**20, 2**23, 2**26)
"""Bytes before each writer's end in which the newest calls are looked for; the next if one has too few."""


class Event(NamedTuple):
    """A call, and the cursor from which the next one will be found."""

    cursor: str
    call: ToolCall


class Found(NamedTuple):
    """What one poll brought."""

    events: list[Event]
    lost: bool
    """A part of the journal that had not been read is gone."""
    behind: int
    """Bytes of the journal that can be read at once."""


class Tail:
    """Calls of which `wanted` says yes, from `positions` on; of several writers, by the time at which they ended."""

    def __init__(self, root: Path, wanted: Callable[[ToolCall], bool], positions: Positions) -> None:
        self._root = root
        self._journal = _short_id(root)
        self._reader = Reader(root, ToolCall)
        self._wanted = wanted
        self._positions = positions

    @classmethod
    def at_end(cls, root: Path, wanted: Callable[[ToolCall], bool]) -> Self:
        """Only what is still to come."""
        return cls(root, wanted, end_positions(root))

    @classmethod
    def after(cls, root: Path, wanted: Callable[[ToolCall], bool], position: str) -> Self | None:
        """What comes after the cursor; None if that is a place in another journal.

        Raises:
            ValueError: it is no cursor.
        """
        positions = cursor.decode(position, _short_id(root), (folder.name for folder in list_writers(root)))
        return None if positions is None else cls(root, wanted, positions)

    @property
    def cursor(self) -> str:
        """The place up to which everything has been read."""
        return cursor.encode(self._positions, self._journal)

    def poll(self) -> Found:
        """Read what is there, about `READ_BYTES` at most."""
        ends, lost = self._survey()
        batch = self._reader.read(self._positions, READ_BYTES)
        vector = {writer: self._positions.get(writer, 0) for writer in batch.positions}
        events = []
        for entry, call in _by_time(batch.entries):
            vector[entry.writer] = entry.offset
            if self._wanted(call):
                events.append(Event(cursor.encode(vector, self._journal), call))
        progress = batch.positions != self._positions
        self._move(batch.positions, ends)
        return Found(events, lost, batch.lag_bytes if progress else 0)

    def skip(self) -> int:
        """Go to the end of the journal without the calls on the way: the number of them."""
        skipped = 0
        behind = 1
        while behind > 0:
            found = self.poll()
            skipped += len(found.events)
            behind = found.behind
        return skipped

    def newest(self, count: int) -> list[Event]:
        """Go to the end of the journal: the last `count` calls of it, the oldest first.

        They are looked for in the last 64 MiB of each writer.
        """
        ends = end_positions(self._root)
        entries: list[Entry] = []
        start: Positions = {}
        for window in REPLAY_WINDOWS:
            start = {writer: max(end - window, 0) for writer, end in ends.items()}
            entries = self._read_from(start)
            if len(entries) >= count or not any(start.values()):
                break
        vector = {writer: start.get(writer, 0) for writer in self._positions}
        events = []
        for i, (entry, call) in enumerate(_by_time(entries)):
            vector[entry.writer] = entry.offset
            if i >= len(entries) - count:
                events.append(Event(cursor.encode(vector, self._journal), call))
        return events

    def _read_from(self, positions: Positions) -> list[Entry]:
        """The wanted calls from there to the end."""
        entries: list[Entry] = []
        behind = 1
        while behind > 0:
            ends, _ = self._survey()
            batch = self._reader.read(positions, 2**20)
            entries += [entry for entry, call in _calls(batch.entries) if self._wanted(call)]
            behind = batch.lag_bytes if batch.positions != positions else 0
            positions = batch.positions
            self._move(positions, ends)
        return entries

    def _survey(self) -> tuple[Mapping[str, int], bool]:
        """The final ends of the writers that append no more, and whether anything unread is gone."""
        ends: dict[str, int] = {}
        present = set()
        lost = False
        for folder in list_writers(self._root):
            closed = (folder / CLOSED).exists()  # before the listing: what is closed then grows no more
            segments = list_segments(folder)
            if segments:
                present.add(folder.name)
                lost = lost or self._positions.get(folder.name, 0) < segments[0].base
                if closed:
                    ends[folder.name] = segments[-1].end
        gone = self._positions.keys() - present
        return ends, lost or any(self._positions[writer] < cursor.PASSED for writer in gone)

    def _move(self, positions: Positions, ends: Mapping[str, int]) -> None:
        self._positions = {
            writer: cursor.PASSED if writer in ends and offset >= ends[writer] else offset
            for writer, offset in positions.items()
        }


def _short_id(root: Path) -> str:
    """Enough of the journal's id to tell it from the other replicas', in each event."""
    return journal_id(root)[:8]


def _calls(entries: Iterable[Entry]) -> Iterator[tuple[Entry, ToolCall]]:
    return ((entry, entry.event) for entry in entries if isinstance(entry.event, ToolCall))


def _by_time(entries: Iterable[Entry]) -> Iterator[tuple[Entry, ToolCall]]:
    """Merge the writers by the time at which calls ended; the order of one writer's calls stays."""
    writers: dict[str, list[tuple[Entry, ToolCall]]] = {}
    for entry, call in _calls(entries):
        writers.setdefault(entry.writer, []).append((entry, call))
    return heapq.merge(*writers.values(), key=lambda item: item[1].timestamp_ns + item[1].total_ms * 1e6)
