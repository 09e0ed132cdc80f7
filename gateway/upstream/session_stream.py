"""The streams that a legacy server's sessions have of their own (GET): changes, and what belongs to no response stream.

Source: specification 2025-11-25, basic/transports/streamable-http, "Listening for Messages from the Server".
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from gateway.backoff import Backoff
from gateway.http1.client import Connection
from gateway.mcp import cancellation, jsonrpc, log_levels, sse
from gateway.mcp.subscriptions import CHANGES
from gateway.upstream import http_response
from gateway.upstream.base import UpstreamError, UpstreamTimings
from gateway.upstream.http_session import LegacyHttpSession
from gateway.upstream.http_transport import FAILURES, HttpTransport

logger = logging.getLogger(__name__)

_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERROR: Final = 500
_PROGRESS: Final = "notifications/progress"
_TOKEN: Final = "progressToken"  # noqa: S105 - the member's name in MCP


class SessionStreams:
    """The streams of one server's sessions, each read by a task of its own."""

    def __init__(
        self,
        transport: HttpTransport,
        timings: UpstreamTimings,
        *,
        expired: Callable[[LegacyHttpSession], None],
        reopened: Callable[[LegacyHttpSession], None],
    ) -> None:
        self._transport = transport
        self._timings = timings
        self._expired = expired
        """Called with a session that the server does not know any more."""
        self._reopened = reopened
        """Called with a session whose stream was away for a time, so that messages were missed."""
        self._tasks: dict[LegacyHttpSession, asyncio.Task[None]] = {}
        self._opened: dict[LegacyHttpSession, asyncio.Event] = {}

    @property
    def count(self) -> int:
        """Streams that are open, or are to be opened."""
        return sum(not task.done() for task in self._tasks.values())

    def start(self, session: LegacyHttpSession) -> asyncio.Event:
        """Read the session's stream from now on; the event is set when it is open, or there is none."""
        if session not in self._opened:
            self._opened[session] = asyncio.Event()
            self._tasks[session] = asyncio.create_task(self._run(session, self._opened[session]))
        return self._opened[session]

    async def open(self, session: LegacyHttpSession) -> None:
        """Start to read the session's stream, and wait for a moment until it is open."""
        opened = self.start(session)
        try:
            async with asyncio.timeout(self._timings.stream_opens_s):
                await opened.wait()
        except TimeoutError:
            logger.info("upstream %s does not open its stream at once", self._transport.slug)

    def stop(self, session: LegacyHttpSession) -> None:
        """The session is over."""
        self._opened.pop(session, None)
        task = self._tasks.pop(session, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for session in list(self._tasks):
            self.stop(session)
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one stream

    async def _run(self, session: LegacyHttpSession, opened: asyncio.Event) -> None:
        """Open the stream again and again; a server that refuses the first time has none, and is not asked again."""
        parser = sse.Parser()
        backoff = Backoff(self._timings.reconnect_s, self._timings.reconnect_longest_s)
        was_open = False
        loop = asyncio.get_running_loop()
        try:
            while True:
                since = loop.time()
                missed = was_open and parser.last_id is None  # with an id the server repeats what was missed
                status = await self._read(session, parser, opened, missed=missed)
                if status not in (None, http_response.OK) and not (was_open and _is_temporary(status)):
                    break
                was_open = was_open or status == http_response.OK
                pause = 0.0
                if status is None or loop.time() - since < self._timings.reconnect_s:
                    pause = backoff.failed()
                else:
                    backoff.reset()
                retry = parser.retry_ms / 1000 if parser.retry_ms is not None else 0.0
                await asyncio.sleep(min(max(pause, retry), self._timings.reconnect_longest_s))
                parser = sse.Parser(parser.last_id, parser.retry_ms)
        except Exception:
            logger.exception("upstream %s: its stream cannot be read", self._transport.slug)
            return
        finally:
            opened.set()
        if status == http_response.NOT_FOUND and was_open and session.session_id is not None:
            self._expired(session)

    async def _read(
        self, session: LegacyHttpSession, parser: sse.Parser, opened: asyncio.Event, *, missed: bool
    ) -> int | None:
        """Read the stream to its end: the status of the response (200 only for a stream), None if there was none."""
        connection: Connection | None = None
        try:
            connection, response = await self._transport.get(session, parser.last_id)
            if response.status != http_response.OK:
                return response.status
            if not response.streaming:
                return http_response.METHOD_NOT_ALLOWED
            opened.set()
            if missed:
                self._reopened(session)
            async for chunk in connection.stream():
                for event in parser.feed(chunk):
                    if event.event == "message" and event.data:
                        await self._receive(session, event.data)
        except FAILURES as error:
            logger.debug("upstream %s: its stream ended: %s", self._transport.slug, error)
            return http_response.OK if opened.is_set() and connection is not None else None
        else:
            return http_response.OK
        finally:
            if connection is not None:
                connection.abort()

    async def _receive(self, session: LegacyHttpSession, data: bytes) -> None:
        """A message that is not a change belongs to the only request that it can belong to, if there is one."""
        try:
            message = http_response.decode(data, jsonrpc.decode_message)
        except UpstreamError as error:
            logger.debug("upstream %s: %s", self._transport.slug, error)
            return
        if message.method is UNSET:
            return
        method, params = message.method, message.params if message.params is not UNSET else {}
        if message.id is not UNSET:
            session.server_requests().receive(message)
        elif method in CHANGES:
            self._transport.notifier.notify(method, params)
        elif method == cancellation.METHOD:
            session.server_requests().cancel(params)
        elif method in (log_levels.METHOD, _PROGRESS):
            await self._notify(session, method, params, data)

    @staticmethod
    async def _notify(session: LegacyHttpSession, method: str, params: jsonrpc.Params, data: bytes) -> None:
        request = session.only_request()
        if request is None or request.notify is None or not request.wants_notification(method, params):
            return
        if method != _PROGRESS or params.get(_TOKEN) == request.meta.get(_TOKEN, b""):
            await request.notify(data)


def _is_temporary(status: int | None) -> bool:
    """Whether the server, or a proxy before it, only cannot answer now: that says nothing about the stream."""
    return status is not None and (status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS)
