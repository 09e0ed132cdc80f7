"""Server-Sent Events, incrementally (WHATWG HTML, section 9.2.6): bytes in, whole events out."""

from typing import Final, NamedTuple

from gateway.errors import CallscopeError

MAX_EVENT_BYTES: Final = 64 * 2**20
_MAX_RETRY_DIGITS: Final = 9


class EventTooLargeError(CallscopeError):
    """A stream sent an event that is larger than the gateway holds in memory."""


class ServerSentEvent(NamedTuple):
    """One dispatched event; `data` joined by newlines."""

    data: bytes
    event: str = "message"
    id: str | None = None


class Parser:
    """Feed it chunks as they come; it returns the events that they completed."""

    def __init__(self, last_id: str | None = None, retry_ms: int | None = None) -> None:
        """With the id and the time of a stream that this one continues."""
        self._rest = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._event = "message"
        self._id = self._coming_id = last_id
        self._first = True
        self._after_cr = False
        self.retry_ms = retry_ms
        """How long the server wants its client to wait before it asks for the rest of a stream that broke."""

    @property
    def last_id(self) -> str | None:
        """The newest id of the stream, that of an event without data included: where the rest of it begins.

        The id of an event that has not ended is not yet one: whoever went on from there would never get the event.
        """
        return self._id

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Take a chunk; the events that it completed, in order.

        Raises:
            EventTooLargeError: the stream cannot be followed any more.
        """
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        self._rest += chunk
        ends = b"\n" in chunk or b"\r" in chunk
        if self._first and (ends or len(self._rest) >= 3):  # noqa: PLR2004 - the length of a byte-order mark
            self._first = False
            if self._rest.startswith(b"\xef\xbb\xbf"):
                del self._rest[:3]
        if not ends and len(self._rest) <= MAX_EVENT_BYTES:
            return []  # a large event in many chunks is looked at once, not once a chunk
        events = []
        for line in self._take_lines():
            event = self._line(line)
            if event is not None:
                events.append(event)
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLargeError(f"an event of the stream has more than {MAX_EVENT_BYTES} bytes")
        return events

    def _take_lines(self) -> list[bytes]:
        """Lines end with CRLF, LF or CR; a CR at the very end ends its line, and a following LF belongs to it."""
        data = bytes(self._rest)
        self._after_cr = data.endswith(b"\r")
        lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = bytearray(lines.pop())
        return lines

    def _line(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif field == b"event":
            self._event = value.decode("utf-8", "replace")
        elif field == b"id" and b"\0" not in value:
            self._coming_id = value.decode("utf-8", "replace")
        elif field == b"retry" and value.isdigit() and len(value) <= _MAX_RETRY_DIGITS:
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._size, self._event, self._id = [], 0, "message", self._coming_id
        return ServerSentEvent(b"\n".join(data), event or "message", self._id) if data else None


def encode(data: bytes) -> bytes:
    """A `message` event's bytes; a line break in `data`, which JSON allows between tokens, begins another line."""
    if b"\n" in data or b"\r" in data:
        data = b"\r\ndata: ".join(data.splitlines())
    return b"event: message\r\ndata: %b\r\n\r\n" % data
