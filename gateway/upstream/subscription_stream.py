"""One `subscriptions/listen` of the gateway's with a modern server: acknowledged first, then changes until it ends.

Source: specification 2026-07-28, basic/patterns/subscriptions.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from msgspec import UNSET

from gateway.calls import ErrorType
from gateway.http1.client import Connection
from gateway.http1.pool import ConnectError
from gateway.mcp import jsonrpc, sse, subscriptions
from gateway.mcp.subscriptions import Filter
from gateway.upstream import http_response
from gateway.upstream.base import UpstreamError, UpstreamRequest
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.http_session import HttpSession
from gateway.upstream.http_transport import FAILURES, HttpTransport

logger = logging.getLogger(__name__)

ACKNOWLEDGE_S: Final = 10.0


class ListenStream:
    """Opened by `open`; `ended` is done when nothing will come any more."""

    def __init__(self, session: HttpSession, wanted: Filter, connection: Connection, listeners: ChangeNotifier) -> None:
        self.session = session
        self.wanted = wanted
        self.kept = wanted
        """What the server keeps to, of what is wanted."""
        self._connection = connection
        self._listeners = listeners
        self.ended: asyncio.Task[None]

    @classmethod
    async def open(
        cls, transport: HttpTransport, session: HttpSession, wanted: Filter, listeners: ChangeNotifier
    ) -> "ListenStream":
        """Ask for changes, and wait until the server has acknowledged that.

        Raises:
            UpstreamError: it has not.
        """
        request = UpstreamRequest(subscriptions.METHOD, subscriptions.listen_params(wanted))
        try:
            async with asyncio.timeout(ACKNOWLEDGE_S):
                connection, response = await transport.open(session.message(request, transport.next_id()))
                try:
                    if response.status != http_response.OK or not response.streaming:
                        raise _refusal(response.body, response.status)
                    stream = cls(session, wanted, connection, listeners)
                    messages = stream._messages()
                    await stream._acknowledged(messages)
                except BaseException:
                    connection.abort()
                    raise
        except TimeoutError as error:
            why = f"did not acknowledge subscriptions/listen within {ACKNOWLEDGE_S:g} s"
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, why) from error
        except FAILURES as error:
            lost = isinstance(error, ConnectError)
            kind = ErrorType.UPSTREAM_UNREACHABLE if lost else ErrorType.UPSTREAM_PROTOCOL_ERROR
            raise UpstreamError(kind, str(error)) from error
        stream.ended = asyncio.create_task(stream._read(messages))
        return stream

    def close(self) -> None:
        """Want no more of it; over HTTP that is to close the connection."""
        self.ended.cancel()
        self._connection.abort()

    async def _messages(self) -> AsyncIterator[jsonrpc.Message]:
        parser = sse.Parser()
        async for chunk in self._connection.stream():
            for event in parser.feed(chunk):
                if event.event == "message" and event.data:
                    yield http_response.decode(event.data)

    async def _acknowledged(self, messages: AsyncIterator[jsonrpc.Message]) -> None:
        async for message in messages:
            if message.method == subscriptions.ACKNOWLEDGED:
                self.kept = subscriptions.read_acknowledged(message.params if message.params is not UNSET else {})
                return
            if message.method is UNSET:
                break
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, "ended subscriptions/listen before it acknowledged it")

    async def _read(self, messages: AsyncIterator[jsonrpc.Message]) -> None:
        try:
            async for message in messages:
                if message.method is UNSET:
                    break  # the result: the server ends the stream in order
                self._listeners.tell(message.method, message.params if message.params is not UNSET else {})
        except (UpstreamError, *FAILURES) as error:
            logger.debug("a stream of changes ended: %s", error)
        finally:
            self._connection.abort()


def _refusal(body: bytes, status: int) -> UpstreamError:
    """A server that does not serve `subscriptions/listen`, or cannot now."""
    try:
        error = http_response.decode(body).error if body else UNSET
    except UpstreamError:
        error = UNSET
    if error is not UNSET:
        why = f"refused subscriptions/listen: {bytes(error)[:200].decode('utf-8', 'replace')}"
        return UpstreamError(ErrorType.JSONRPC_ERROR, why, http_status=status, response=bytes(error))
    return UpstreamError(
        ErrorType.UPSTREAM_HTTP_ERROR, f"answered subscriptions/listen with HTTP {status}", http_status=status
    )
