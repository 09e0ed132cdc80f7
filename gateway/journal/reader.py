"""The observer's end of the journal: reads and decodes whole lines from a position on, and keeps no state on disk."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from gateway.calls import CallStart, Event, Heartbeat, Operation, ToolCall
from gateway.journal.segments import Segment, list_segments, list_writers

Positions = dict[str, int]
"""The offset of the next byte to read, by writer id."""

EventType = type[CallStart] | type[ToolCall] | type[Operation] | type[Heartbeat]

_PREFIX: Final[Mapping[EventType, bytes]] = {
    each: f'{{"event":"{each.__struct_config__.tag}"'.encode() for each in (CallStart, ToolCall, Operation, Heartbeat)
}
_decode: Final = msgspec.json.Decoder(Event).decode


class Entry(NamedTuple):
    """One event and the position right after it."""

    event: Event
    writer: str
    offset: int


class Batch(NamedTuple):
    """The events of one read, and where the next one continues."""

    entries: list[Entry]
    positions: Positions
    corrupt: int
    """Lines that are not events: skipped, and counted."""
    lag_bytes: int
    """Bytes in the journal behind `positions` when the batch was read, without a line that is not whole."""
    size: int = 0
    """Bytes of the journal that the batch was read from."""

    @property
    def events(self) -> list[Event]:
        """The events alone."""
        return [entry.event for entry in self.entries]


class Reader:
    """Reads events of the given types. From a position in a deleted segment it continues at the oldest one left."""

    def __init__(self, root: Path, *types: EventType) -> None:
        self._root = root
        self._prefixes = tuple(_PREFIX[event_type] for event_type in types or _PREFIX)

    def read(self, positions: Mapping[str, int], max_bytes: int = 2**20) -> Batch:
        """Read at most about `max_bytes` of whole lines, the oldest writer first.

        Writers that are gone are not in the new positions.
        """
        entries: list[Entry] = []
        reached: Positions = {}
        size = corrupt = lag = 0
        for folder in list_writers(self._root):
            segments = list_segments(folder)
            if segments:
                begin = max(positions.get(folder.name, 0), segments[0].base)
                part = self._read_writer(folder.name, segments, begin, max_bytes - size)
                entries += part.entries
                reached |= part.positions
                corrupt += part.corrupt
                lag += part.lag_bytes
                size += part.size
        return Batch(entries, reached, corrupt, lag, size)

    def _read_writer(self, writer: str, segments: Sequence[Segment], position: int, max_bytes: int) -> Batch:
        entries: list[Entry] = []
        size = corrupt = 0
        for segment in segments:
            if position >= segment.end:
                continue
            if size >= max_bytes:
                break
            data = _whole_lines(segment, position, max_bytes - size)
            if data:
                corrupt += self._decode_into(entries, data, writer, position)
                position += len(data)
                size += len(data)
                if position < segment.end:
                    break
            elif segment is segments[-1]:  # no whole line: not yet, or, of a writer that died, never
                return Batch(entries, {writer: position}, corrupt, 0, size)
            else:
                corrupt += data is not None  # the segment ends in the middle of a line
                position = segment.end
        return Batch(entries, {writer: position}, corrupt, max(segments[-1].end - position, 0), size)

    def _decode_into(self, entries: list[Entry], data: bytes, writer: str, offset: int) -> int:
        corrupt, prefixes = 0, self._prefixes
        for line in data.splitlines(keepends=True):
            offset += len(line)
            if not line.startswith(prefixes):
                corrupt += not line.startswith(b'{"event":"')
                continue
            try:
                entries.append(Entry(_decode(line), writer, offset))
            except msgspec.MsgspecError:
                corrupt += 1
        return corrupt


def decode_lines(data: bytes) -> Iterator[Event]:
    """Every event in `data`; lines that are not events are skipped."""
    for line in data.splitlines():
        with contextlib.suppress(msgspec.MsgspecError):
            yield _decode(line)


def _whole_lines(segment: Segment, position: int, max_bytes: int) -> bytes | None:
    """Bytes of `segment` from `position` to a newline; one line at least, if there is a whole one.

    None if the janitor was faster: the next segment goes on behind it.
    """
    try:
        with segment.path.open("rb") as file:
            file.seek(position - segment.base)
            data = file.read(max_bytes)
            end = data.rfind(b"\n") + 1
            if end == 0 and len(data) == max_bytes:
                data += file.readline()
                end = len(data) if data.endswith(b"\n") else 0
            return data[:end]
    except FileNotFoundError:
        return None


def end_positions(root: Path) -> Positions:
    """Where each writer's last whole line ends now: the position of a reader that wants only what is still to come."""
    ends: Positions = {}
    for folder in list_writers(root):
        segments: Sequence[Segment] = list_segments(folder)
        if segments:
            last = segments[-1]
            ends[folder.name] = last.base + len(_whole_lines(last, last.base, max(last.size, 1)) or b"")
    return ends
