"""What a legacy server says on its sessions' own streams (GET): changes, and what its SDK has not tied to a request.

Source: specification 2025-11-25, basic/transports/streamable-http, "Listening for Messages from the Server".
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from msgspec import UNSET

from gateway.http1.client import Connection
from gateway.mcp import cancellation, jsonrpc, log_levels, sse
from gateway.mcp.subscriptions import CHANGES
from gateway.upstream import http_response, request_meta
from gateway.upstream.base import UpstreamError
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.http_session import LegacyHttpSession
from gateway.upstream.http_transport import FAILURES, HttpTransport

logger = logging.getLogger(__name__)

OPEN_S: Final = 1.0
"""How long a request waits for the stream of its new session: on it the server may ask what the request needs."""
MIN_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
_TOO_MANY: Final = 429
_SERVER_ERROR: Final = 500
_PROGRESS: Final = "notifications/progress"
_TOKEN: Final = "progressToken"  # noqa: S105 - the member's name in MCP


class SessionStreams:
    """The streams of one server's sessions, each read by a task of its own."""

    def __init__(
        self, transport: HttpTransport, listeners: ChangeNotifier, lost: Callable[[LegacyHttpSession], None]
    ) -> None:
        self._transport = transport
        self._listeners = listeners
        self._lost = lost
        self.reopened: Callable[[LegacyHttpSession], None] = lambda _: None
        """Told of a session whose stream was away for a time, and what the server said meanwhile with it."""
        self._tasks: dict[LegacyHttpSession, asyncio.Task[None]] = {}
        self._always: set[LegacyHttpSession] = set()
        self._opened: dict[LegacyHttpSession, asyncio.Event] = {}

    @property
    def count(self) -> int:
        """Streams that are open, or shall be."""
        return sum(not task.done() for task in self._tasks.values())

    @property
    def wanted(self) -> bool:
        """Whether changes are listened for."""
        return bool(self._listeners)

    def begin(self, session: LegacyHttpSession, *, always: bool = False) -> asyncio.Event:
        """Read the session's stream, if that is not done yet; the event is set when it is open, or there is none."""
        if always:
            self._always.add(session)
        if session not in self._opened:
            self._opened[session] = asyncio.Event()
            self._tasks[session] = asyncio.create_task(self._run(session, self._opened[session]))
        return self._opened[session]

    async def hear(self, session: LegacyHttpSession, *, always: bool = False) -> None:
        """The same, if there is a listener or `always`, and wait for a moment until it is open."""
        if always or self._listeners:
            opened = self.begin(session, always=always)
            try:
                async with asyncio.timeout(OPEN_S):
                    await opened.wait()
            except TimeoutError:
                logger.info("upstream %s does not open its stream at once", self._transport.slug)

    def stop(self, session: LegacyHttpSession) -> None:
        """The session is over."""
        self._always.discard(session)
        self._opened.pop(session, None)
        task = self._tasks.pop(session, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def stop_listening(self) -> None:
        """There is no listener any more: only those streams stay on which clients are asked."""
        for session in list(self._tasks):
            if session not in self._always:
                self.stop(session)

    async def close(self) -> None:
        """End all streams."""
        tasks = list(self._tasks.values())
        for session in list(self._tasks):
            self.stop(session)
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one stream

    async def _run(self, session: LegacyHttpSession, opened: asyncio.Event) -> None:
        """Open the stream again and again; a server that has none says so once, before there ever was one."""
        parser = sse.Parser()
        pause, was_open = 0.0, False
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                missed = was_open and parser.last_id is None
                verdict = await self._read(session, parser, opened, missed=missed)
                if verdict not in (None, http_response.OK) and not (was_open and _may_pass(verdict)):
                    break
                was_open = was_open or verdict == http_response.OK
                quick = verdict is None or loop.time() - began < MIN_PAUSE_S
                pause = min(max(pause * 2, MIN_PAUSE_S), MAX_PAUSE_S) if quick else 0.0
                asked = parser.retry_ms / 1000 if parser.retry_ms is not None else 0.0
                await asyncio.sleep(min(max(pause, asked), MAX_PAUSE_S))
                parser = sse.Parser(parser.last_id, parser.retry_ms)
        except Exception:
            logger.exception("upstream %s: its stream cannot be read", self._transport.slug)
            return
        finally:
            opened.set()
        if verdict == http_response.NOT_FOUND and was_open and session.session_id is not None:
            self._lost(session)

    async def _read(
        self, session: LegacyHttpSession, parser: sse.Parser, opened: asyncio.Event, *, missed: bool
    ) -> int | None:
        """Read the stream to its end: the status of the answer (200 only for a stream), None if there was none."""
        connection: Connection | None = None
        try:
            connection, response = await self._transport.get(session, parser.last_id)
            if response.status != http_response.OK or not response.streaming:
                return response.status if response.status != http_response.OK else http_response.METHOD_NOT_ALLOWED
            opened.set()
            if missed:
                self.reopened(session)
            async for chunk in connection.stream():
                for event in parser.feed(chunk):
                    if event.event == "message" and event.data:
                        await self._take(session, event.data)
        except FAILURES as error:
            logger.debug("upstream %s: its stream ended: %s", self._transport.slug, error)
            return http_response.OK if opened.is_set() and connection is not None else None
        else:
            return http_response.OK
        finally:
            if connection is not None:
                connection.abort()

    async def _take(self, session: LegacyHttpSession, data: bytes) -> None:
        """What is no change belongs to the only request that it can belong to, if there is one."""
        try:
            message = http_response.decode(data)
        except UpstreamError as error:
            logger.debug("upstream %s: %s", self._transport.slug, error)
            return
        if message.method is UNSET:
            return
        params = message.params if message.params is not UNSET else {}
        if message.id is not UNSET:
            session.asked().take(message)
        elif message.method in CHANGES:
            self._listeners.tell(message.method, params)
        elif message.method == cancellation.METHOD:
            cancelled = cancellation.read(params)
            if cancelled is not None:
                session.asked().cancel(cancelled.request_id)
        elif message.method in (log_levels.METHOD, _PROGRESS):
            await self._notify(session, message.method, params, data)

    @staticmethod
    async def _notify(session: LegacyHttpSession, method: str, params: jsonrpc.Params, data: bytes) -> None:
        request = session.only_request()
        if request is None or request.notify is None or not request_meta.wants(request, method, params):
            return
        if method != _PROGRESS or params.get(_TOKEN) == request.meta.get(_TOKEN, b""):
            await request.notify(data)


def _may_pass(status: int | None) -> bool:
    """Whether a refusal says nothing of the stream: the server, or what stands before it, cannot now."""
    return status is not None and (status >= _SERVER_ERROR or status == _TOO_MANY)
