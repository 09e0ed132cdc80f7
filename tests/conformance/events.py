"""The fixture's memory of its streams: a legacy client that lost one asks for the rest with `Last-Event-ID`."""

from itertools import islice

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage


class Memory(EventStore):
    """Every event, numbered from 1 in the order it was sent."""

    def __init__(self) -> None:
        self._events: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Keep an event; None is the empty one that begins a stream."""
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        """Send what came later on the same stream."""
        seen = int(last_event_id) if last_event_id.isdigit() else 0
        if not 0 < seen <= len(self._events):
            return None
        stream = self._events[seen - 1][0]
        for number, (of, message) in enumerate(islice(self._events, seen, None), start=seen + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream
