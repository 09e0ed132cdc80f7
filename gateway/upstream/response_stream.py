"""The event stream that answers one request: notifications, a legacy server's questions, and in the end the response.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/streamable-http, "Receiving Messages".
"""

from typing import Final

from msgspec import UNSET

from gateway.http1.client import Connection
from gateway.mcp import cancellation, jsonrpc, sse
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import CHANGES
from gateway.upstream import http_response, request_meta
from gateway.upstream.base import UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.http_session import HttpSession, LegacyHttpSession

MAX_RETRY_S: Final = 5.0
"""The longest that a server may make a client wait before it asks for the rest of a broken stream."""
_RETRY_S: Final = 0.5


class ResponseStream:
    """Follows the stream of one request, over one connection or, if it is resumed, over several."""

    def __init__(
        self, session: HttpSession, request: UpstreamRequest, request_id: int, listeners: ChangeNotifier
    ) -> None:
        self._session = session
        self._request = request
        self._request_id = request_id
        self._listeners = listeners
        self.parser = sse.Parser()

    @property
    def retry_s(self) -> float:
        """How long to wait before the rest is asked for."""
        retry_ms = self.parser.retry_ms
        return _RETRY_S if retry_ms is None else min(retry_ms / 1000, MAX_RETRY_S)

    def begin_anew(self) -> None:
        """Another connection gives the rest: what came of an event that was cut is forgotten."""
        self.parser = sse.Parser(self.parser.last_id, self.parser.retry_ms)

    async def until_answer(self, connection: Connection) -> UpstreamResponse | None:
        """Read up to the response; None if the stream ends without it.

        Raises:
            UpstreamError: what came is no JSON-RPC.
            ConnectionLostError, MalformedResponseError, EventTooLargeError: the stream cannot be read to its end.
        """
        async for chunk in connection.stream():
            for event in self.parser.feed(chunk):
                if event.event != "message" or not event.data:
                    continue  # another kind, or one that only has an id to resume at (2025-11-25, "priming")
                message = http_response.decode(event.data)
                if message.method is UNSET:
                    return http_response.reply_in(message, len(event.data), self._request_id, self._session.era)
                if message.id is UNSET:
                    await self._notified(message, event.data)
                elif isinstance(self._session, LegacyHttpSession):
                    self._session.asked(self._request).take(message)
        return None

    async def _notified(self, message: jsonrpc.Message, data: bytes) -> None:
        """A change is everybody's; anything else is the request's."""
        method = str(message.method)
        params = message.params if message.params is not UNSET else {}
        if method in CHANGES:
            self._listeners.tell(method, params)
        elif isinstance(self._session, LegacyHttpSession) and method == cancellation.METHOD:
            cancelled = cancellation.read(params)
            if cancelled is not None:
                self._session.asked(self._request).cancel(cancelled.request_id)
        elif self._request.notify is not None and (
            self._session.era is Era.MODERN or request_meta.wants(self._request, method, params)
        ):
            await self._request.notify(data)
