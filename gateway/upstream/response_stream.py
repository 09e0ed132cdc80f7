"""The event stream that answers one request: notifications, a legacy server's own requests, at last the response.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/streamable-http, "Receiving Messages".
"""

from typing import Final

from msgspec import UNSET

from gateway.http1.client import Connection
from gateway.mcp import cancellation, jsonrpc, sse
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import CHANGES
from gateway.upstream import http_response
from gateway.upstream.base import UpstreamRequest, UpstreamResponse
from gateway.upstream.http_session import HttpSession, LegacyHttpSession
from gateway.upstream.server_subscriptions import ChangeNotifier

MAX_RETRY_S: Final = 5.0
"""The longest time that a server may make us wait before we ask for the rest of a broken stream."""
_RETRY_S: Final = 0.5


class ResponseStream:
    """Follows the stream of one request, over one connection or, if it is resumed, over several."""

    def __init__(
        self, session: HttpSession, request: UpstreamRequest, request_id: int, notifier: ChangeNotifier
    ) -> None:
        self._session = session
        self._request = request
        self._request_id = request_id
        self._notifier = notifier
        self.parser = sse.Parser()

    @property
    def retry_s(self) -> float:
        """How long to wait before the rest is asked for."""
        retry_ms = self.parser.retry_ms
        return _RETRY_S if retry_ms is None else min(retry_ms / 1000, MAX_RETRY_S)

    def resume(self) -> None:
        """Another connection gives the rest: forget what has come of an event that was cut off."""
        self.parser = sse.Parser(self.parser.last_id, self.parser.retry_ms)

    async def until_response(self, connection: Connection) -> UpstreamResponse | None:
        """Read up to the response; None if the stream ends without it.

        Raises:
            UpstreamError: what came is not JSON-RPC.
            ConnectionLostError, MalformedResponseError, EventTooLargeError: the stream cannot be read to its end.
        """
        async for chunk in connection.stream():
            for event in self.parser.feed(chunk):
                if event.event != "message" or not event.data:
                    continue  # another kind, or one that only has an id to resume at (2025-11-25, "priming")
                message = http_response.decode(event.data, jsonrpc.decode_message)
                if message.method is UNSET:
                    return http_response.response_in(message, len(event.data), self._request_id, self._session.era)
                if message.id is UNSET:
                    await self._notified(message.method, message, event.data)
                elif isinstance(self._session, LegacyHttpSession):
                    self._session.server_requests(self._request).receive(message)
        return None

    async def _notified(self, method: str, message: jsonrpc.Message, data: bytes) -> None:
        """A change concerns every client; any other notification belongs to the request."""
        params = message.params if message.params is not UNSET else {}
        session, request = self._session, self._request
        if method in CHANGES:
            self._notifier.notify(method, params)
        elif isinstance(session, LegacyHttpSession) and method == cancellation.METHOD:
            session.server_requests(request).cancel(params)
        elif request.notify is not None and (session.era is Era.MODERN or request.wants_notification(method, params)):
            await request.notify(data)
