"""One reader's position in the journal: the calls that it wants, as they come, each with the cursor right behind it.

A cursor is a position as text: the `id:` of a live event, which the client sends back to go on from there. It names the
journal, because each replica has one of its own, and the offset of every writer, so that it means the same after a
restart of the observer. A writer that appends no more and has been read to its end is *passed*: nothing of it can be
missed when its folder is gone.

Everything here blocks on files: it is for a worker thread.
"""

import base64
import binascii
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Final, NamedTuple, Self

import msgspec

from gateway.calls import ToolCall
from gateway.journal import Reader, journal_id
from gateway.journal.reader import Positions, end_positions
from gateway.journal.segments import CLOSED, list_segments, list_writers

READ_BYTES: Final = 256 * 2**10
REPLAY_WINDOWS: Final = (2**20, 2**23, 2**26)
"""Bytes before each writer's end in which the newest calls are looked for; the next if one has too few."""
PASSED: Final = 2**62
"""An offset behind everything that a writer can write."""
MAX_WRITERS: Final = 64
"""Of one cursor: the newest. Writers before the oldest of a full cursor count as passed."""
MAX_CURSOR_LENGTH: Final = 8192

_Offset = Annotated[int, msgspec.Meta(ge=-1, le=PASSED)]
_PASSED_ON_WIRE: Final = -1


def encode_cursor(positions: Positions, journal: str) -> str:
    """Letters, digits, `-` and `_`. `journal` identifies the replica's journal."""
    newest = sorted(positions.items())[-MAX_WRITERS:]
    wire = {writer: _PASSED_ON_WIRE if offset >= PASSED else offset for writer, offset in newest}
    return base64.urlsafe_b64encode(msgspec.json.encode((journal, wire))).rstrip(b"=").decode()


def decode_cursor(cursor: str, journal: str, writers: Iterable[str]) -> Positions | None:
    """The positions of the cursor, None if it is of another journal. `writers` are those in the journal now.

    Raises:
        ValueError: it is not a cursor.
    """
    try:
        if len(cursor) > MAX_CURSOR_LENGTH:
            raise ValueError("too long")
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        cursor_journal, wire = msgspec.json.decode(data, type=tuple[str, dict[str, _Offset]])
    except (ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise ValueError("is not a position of this stream: send the id of an event back unchanged") from error
    if cursor_journal != journal:
        return None
    positions = {writer: PASSED if offset == _PASSED_ON_WIRE else offset for writer, offset in wire.items()}
    if len(wire) >= MAX_WRITERS:
        oldest = min(wire)
        positions.update((writer, PASSED) for writer in writers if writer < oldest)
    return positions


class LiveEvent(NamedTuple):
    """A call, and the cursor from which the next one will be found."""

    cursor: str
    call: ToolCall


class TailRead(NamedTuple):
    """The result of one poll."""

    events: list[LiveEvent]
    lost: bool
    """A part of the journal that had not been read is gone."""
    behind: int
    """Bytes of the journal that can be read at once."""


class _WantedCall(NamedTuple):
    writer: str
    offset: int
    call: ToolCall


class JournalTail:
    """The calls that `wanted` accepts, from `positions` on; of several writers, by the time at which they ended."""

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
    def after(cls, root: Path, wanted: Callable[[ToolCall], bool], cursor: str) -> Self | None:
        """What comes after the cursor; None if it is of another journal.

        Raises:
            ValueError: it is not a cursor.
        """
        positions = decode_cursor(cursor, _short_id(root), (folder.name for folder in list_writers(root)))
        return None if positions is None else cls(root, wanted, positions)

    @property
    def cursor(self) -> str:
        """The position up to which everything has been read."""
        return encode_cursor(self._positions, self._journal)

    def poll(self) -> TailRead:
        """Read what is there, about `READ_BYTES` at most."""
        before = self._positions
        calls, lost, behind = self._read(READ_BYTES)
        start = {writer: before.get(writer, 0) for writer in self._positions}
        return TailRead(self._events(calls, start), lost, behind)

    def skip(self) -> int:
        """Go to the end of the journal: the number of wanted calls on the way."""
        return sum(map(len, self._read_to_end()))

    def newest(self, count: int) -> list[LiveEvent]:
        """Go to the end of the journal: its last `count` wanted calls, the oldest first.

        They are looked for in the last 64 MiB of each writer.
        """
        ends = end_positions(self._root)
        calls: list[_WantedCall] = []
        start: Positions = {}
        for window in REPLAY_WINDOWS:
            start = self._positions = {writer: max(end - window, 0) for writer, end in ends.items()}
            calls = list(chain.from_iterable(self._read_to_end()))
            if len(calls) >= count or not any(start.values()):
                break
        return self._events(calls, {writer: start.get(writer, 0) for writer in self._positions})[-count:]

    def _events(self, calls: Iterable[_WantedCall], positions: Positions) -> list[LiveEvent]:
        """Merge the writers by the time at which calls ended; the order of one writer's calls stays."""
        writers: dict[str, list[_WantedCall]] = {}
        for one in calls:
            writers.setdefault(one.writer, []).append(one)
        events = []
        for writer, offset, call in heapq.merge(*writers.values(), key=_end_ns):
            positions[writer] = offset
            events.append(LiveEvent(encode_cursor(positions, self._journal), call))
        return events

    def _read(self, max_bytes: int) -> tuple[list[_WantedCall], bool, int]:
        """Go on: the wanted calls, and as in `TailRead` whether anything is lost and how much is left."""
        ends, lost = self._survey()
        batch = self._reader.read(self._positions, max_bytes)
        behind = batch.lag_bytes if batch.positions != self._positions else 0
        self._positions = {
            writer: PASSED if writer in ends and offset >= ends[writer] else offset
            for writer, offset in batch.positions.items()
        }
        calls = [
            _WantedCall(writer, offset, event)
            for event, writer, offset in batch.entries
            if isinstance(event, ToolCall) and self._wanted(event)
        ]
        return calls, lost, behind

    def _read_to_end(self) -> Iterator[list[_WantedCall]]:
        behind = 1
        while behind > 0:
            calls, _, behind = self._read(2**20)
            yield calls

    def _survey(self) -> tuple[Mapping[str, int], bool]:
        """The final ends of the writers that append no more, and whether anything unread is gone."""
        ends: dict[str, int] = {}
        present = set()
        lost = False
        for folder in list_writers(self._root):
            closed = (folder / CLOSED).exists()  # before the listing: a closed writer does not grow after it
            segments = list_segments(folder)
            if segments:
                present.add(folder.name)
                lost = lost or self._positions.get(folder.name, 0) < segments[0].base
                if closed:
                    ends[folder.name] = segments[-1].end
        gone = self._positions.keys() - present
        return ends, lost or any(self._positions[writer] < PASSED for writer in gone)


def _short_id(root: Path) -> str:
    """Enough of the journal's id to tell it from the other replicas', in each event."""
    return journal_id(root)[:8]


def _end_ns(wanted: _WantedCall) -> float:
    return wanted.call.timestamp_ns + wanted.call.total_ms * 1e6
