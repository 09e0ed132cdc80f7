"""One `subscriptions/listen` over HTTP: an event stream, acknowledged first, then changes until it ends.

Source: specification 2026-07-28, basic/patterns/subscriptions.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

from msgspec import UNSET

from gateway.calls import ErrorType
from gateway.http1.client import Connection
from gateway.http1.pool import ConnectError
from gateway.mcp import jsonrpc, sse, subscriptions
from gateway.mcp.subscriptions import NOTHING, SubscriptionFilter
from gateway.upstream import http_response
from gateway.upstream.base import UpstreamError, UpstreamRequest
from gateway.upstream.http_session import HttpSession
from gateway.upstream.http_transport import FAILURES, HttpTransport
from gateway.upstream.server_subscriptions import ChangeNotifier, refusal

logger = logging.getLogger(__name__)


class HttpListenStream:
    """Made by `open`; `ended` is the task that reads it."""

    def __init__(self, connection: Connection, notifier: ChangeNotifier) -> None:
        self._connection = connection
        self._notifier = notifier
        self.accepted = NOTHING
        self.ended: asyncio.Future[None]

    @classmethod
    async def open(
        cls, transport: HttpTransport, session: HttpSession, wanted: SubscriptionFilter, acknowledge_s: float
    ) -> "HttpListenStream":
        """Send the request, and wait until the server has acknowledged it.

        Raises:
            UpstreamError: it has not.
        """
        request = UpstreamRequest(subscriptions.METHOD, subscriptions.listen_params(wanted))
        try:
            async with asyncio.timeout(acknowledge_s):
                connection, response = await transport.open(session.encode(request, next(transport.ids)))
                try:
                    if response.status != http_response.OK or not response.streaming:
                        raise _rejection(response.body, response.status)
                    stream = cls(connection, transport.notifier)
                    messages = stream._messages()
                    stream.accepted = await _acknowledged(messages)
                except BaseException:
                    connection.abort()
                    raise
        except TimeoutError as error:
            reason = f"did not acknowledge subscriptions/listen within {acknowledge_s:g} s"
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, reason) from error
        except FAILURES as error:
            unreachable = isinstance(error, ConnectError)
            kind = ErrorType.UPSTREAM_UNREACHABLE if unreachable else ErrorType.UPSTREAM_PROTOCOL_ERROR
            raise UpstreamError(kind, str(error)) from error
        stream.ended = asyncio.create_task(stream._read(messages))
        return stream

    def close(self) -> None:
        """Over HTTP a subscription is ended by closing its connection."""
        self.ended.cancel()
        self._connection.abort()

    async def _messages(self) -> AsyncIterator[jsonrpc.Message]:
        parser = sse.Parser()
        async for chunk in self._connection.stream():
            for event in parser.feed(chunk):
                if event.event == "message" and event.data:
                    yield http_response.decode(event.data, jsonrpc.decode_message)

    async def _read(self, messages: AsyncIterator[jsonrpc.Message]) -> None:
        try:
            async for message in messages:
                if message.method is UNSET:
                    break  # the response: the server ends the stream in order
                self._notifier.notify(message.method, message.params if message.params is not UNSET else {})
        except (UpstreamError, *FAILURES) as error:
            logger.debug("a subscriptions/listen stream ended: %s", error)
        finally:
            self._connection.abort()


async def _acknowledged(messages: AsyncIterator[jsonrpc.Message]) -> SubscriptionFilter:
    async for message in messages:
        if message.method == subscriptions.ACKNOWLEDGED:
            return subscriptions.read_acknowledged(message.params if message.params is not UNSET else {})
        if message.method is UNSET:
            break
    raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, "ended subscriptions/listen before it acknowledged it")


def _rejection(body: bytes, status: int) -> UpstreamError:
    """A server that does not serve `subscriptions/listen`, or cannot now."""
    try:
        error = http_response.decode(body, jsonrpc.decode_response).error if body else UNSET
    except UpstreamError:
        error = UNSET
    if error is not UNSET:
        return refusal(error, status)
    return UpstreamError(
        ErrorType.UPSTREAM_HTTP_ERROR, f"answered subscriptions/listen with HTTP {status}", http_status=status
    )
