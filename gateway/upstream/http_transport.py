"""One request with a server over HTTP: sent over a kept connection or a new one, and what its failure means.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/streamable-http.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from gateway.calls import ErrorType
from gateway.config import HttpServer
from gateway.http1.client import Connection, ConnectionLostError, HttpResponse, MalformedResponseError
from gateway.http1.pool import ConnectError, Pool
from gateway.mcp import cancellation, sse
from gateway.mcp.revisions import Era
from gateway.upstream import http_response
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.http_response import OK, RedirectError, read
from gateway.upstream.http_session import HttpSession, LegacyHttpSession, moved
from gateway.upstream.response_stream import ResponseStream

logger = logging.getLogger(__name__)

COURTESY_TIMEOUT_S: Final = 10.0
"""What gets no answer is not waited for any longer."""
MAX_BACKGROUND: Final = 64
"""Messages that get no answer and may be on their way to a server; to one that asks faster no more are sent."""
MAX_REDIRECTS: Final = 3
MAX_RESUMES: Final = 10
"""Of one answer, in a row, without any event of it."""
_PERMANENT: Final = 308
_HTTP: Final = {"http": 80, "https": 443}
_NO_MCP: Final = ErrorType.UPSTREAM_PROTOCOL_ERROR

PoolOf = Callable[[str, int, bool], Pool]
"""The process's pool for an origin: host, port, whether TLS."""
FAILURES: Final = (ConnectError, ConnectionLostError, MalformedResponseError, sse.EventTooLargeError)
"""Why there is no whole answer."""


class HttpTransport:
    """The way to one URL."""

    def __init__(self, slug: str, server: HttpServer, pool_of: PoolOf, listeners: ChangeNotifier) -> None:
        self.slug = slug
        self._url = server.url
        url = urlsplit(server.url)
        host = url.hostname or ""
        port = url.port or _HTTP[url.scheme]
        self._origin = (url.scheme, host, port)
        self.pool = pool_of(host, port, url.scheme == "https")
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{port}"
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        authority = shown if port == _HTTP[url.scheme] else self.address
        lines = [f"POST {path} HTTP/1.1", f"host: {authority}"]
        lines += [f"{name.lower()}: {value}" for name, value in server.headers.items()]
        lines += ["content-type: application/json", "accept: application/json, text/event-stream", ""]
        self.base_head = "\r\n".join(lines).encode()
        self._elsewhere = b""
        """The path that a redirect has led to, where what gets no answer goes, too."""
        self._listeners = listeners
        self._ids = itertools.count(1)
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop what runs for this server; its connections belong to the process."""
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def next_id(self) -> int:
        """The id of a request that is sent without `attempt`."""
        return next(self._ids)

    # -- one request

    async def attempt(
        self, session: HttpSession, request: UpstreamRequest, path: bytes = b"", hops: int = 0
    ) -> tuple[UpstreamResponse, HttpResponse]:
        """Send it over a kept connection or a new one, and say of every failure what it means.

        A kept connection may have been closed by the upstream in the very moment of sending. Whether the upstream ran
        the request then, nobody can tell: only what is repeatable is sent again.

        Raises:
            UpstreamError: see `Upstream.request`.
        """
        connection = self.pool.take()
        try:
            if connection is not None:
                try:
                    return await self._over(connection, session, request, path)
                except ConnectionLostError as error:
                    if error.began or not connection.used or not request.repeatable:
                        raise
            return await self._over(await self.pool.connect(), session, request, path)
        except RedirectError as error:
            target = self._target(error)
            if target is None or hops >= MAX_REDIRECTS:
                raise
            return await self._moved(session, request, target, hops, error)
        except ConnectError as error:
            raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, str(error)) from error
        except ConnectionLostError as error:
            kind = _NO_MCP if error.began else ErrorType.UPSTREAM_UNREACHABLE
            raise UpstreamError(kind, str(error), http_status=request.http_status) from error
        except (MalformedResponseError, sse.EventTooLargeError) as error:
            raise UpstreamError(_NO_MCP, str(error), http_status=request.http_status) from error

    async def send(self, session: HttpSession, request: UpstreamRequest) -> UpstreamResponse:
        reply, _ = await self.attempt(session, request)
        return reply

    async def _over(
        self, connection: Connection, session: HttpSession, request: UpstreamRequest, path: bytes
    ) -> tuple[UpstreamResponse, HttpResponse]:
        request.acquired_ns = time.perf_counter_ns()
        request_id = next(self._ids)
        try:
            message = session.message(request, request_id)
            answer = connection.send(moved(message, path) if path else message)
            request.sent_ns = time.perf_counter_ns()
            response = await answer
            request.http_status = response.status
            if response.streaming and response.status == OK:
                reply = await self._follow(connection, session, request, request_id)
            else:
                reply = read(response, request_id, session.era)
        except UpstreamError as error:
            request.first_byte_ns = connection.first_byte_ns
            if error.error_type is http_response.HTTP_ERROR:
                self.pool.release(connection)
            else:  # who answers something else may still send the answer: it must not meet the next request
                connection.abort()
            raise
        except BaseException as error:
            request.first_byte_ns = connection.first_byte_ns
            connection.abort()
            if isinstance(error, asyncio.CancelledError):
                self._cancel(session, request, request_id)
            raise
        request.first_byte_ns = connection.first_byte_ns
        request.done_ns = time.perf_counter_ns()
        self.pool.release(connection)
        return reply, response

    def _cancel(self, session: HttpSession, request: UpstreamRequest, request_id: int) -> None:
        """To a legacy server a closed connection says nothing; `initialize` may not be cancelled."""
        if session.era is Era.LEGACY and request.sent_ns and request.method != "initialize":
            self.post_soon(session, cancellation.notification(request_id, "the client waits no more"))

    # -- streams

    async def _follow(
        self, connection: Connection, session: HttpSession, request: UpstreamRequest, request_id: int
    ) -> UpstreamResponse:
        """Read an event stream up to the response; what a legacy server broke off it may give the rest of."""
        stream = ResponseStream(session, request, request_id, self._listeners)
        try:
            reply = await stream.until_answer(connection)
        except ConnectionLostError:
            reply = await self._resumed(session, stream)
            if reply is None:
                raise
        else:
            reply = reply or await self._resumed(session, stream)
        if reply is None:
            raise UpstreamError(_NO_MCP, "ended its event stream without an answer", http_status=OK)
        return reply

    async def _resumed(self, session: HttpSession, stream: ResponseStream) -> UpstreamResponse | None:
        """The response from the rest of a stream whose events had ids; None if the server does not give it."""
        tries, seen = 0, stream.parser.last_id
        while isinstance(session, LegacyHttpSession) and stream.parser.last_id and tries < MAX_RESUMES:
            await asyncio.sleep(stream.retry_s)
            stream.begin_anew()
            try:
                connection, response = await self.get(session, stream.parser.last_id)
            except FAILURES:
                return None
            try:
                if response.status != OK or not response.streaming:
                    return None
                reply = await stream.until_answer(connection)
            except ConnectionLostError:
                reply = None
            finally:
                connection.abort()
            if reply is not None:
                return reply
            tries = tries + 1 if stream.parser.last_id == seen else 1
            seen = stream.parser.last_id
        return None

    async def get(self, session: HttpSession, last_event_id: str | None = None) -> tuple[Connection, HttpResponse]:
        """Open a legacy server's own event stream; who asks for it aborts the connection.

        Raises:
            ConnectError, ConnectionLostError, MalformedResponseError: there is no answer.
        """
        head = session.head.replace(b"POST ", b"GET ", 1)
        head = head.replace(b"content-type: application/json\r\naccept: application/json, ", b"accept: ", 1)
        if last_event_id is not None and last_event_id.isascii() and last_event_id.isprintable():
            head += b"last-event-id: %b\r\n" % last_event_id.encode()
        return await self.open(head + b"\r\n")

    async def open(self, request: bytes) -> tuple[Connection, HttpResponse]:
        """Send what is answered by a stream; who asks for it aborts the connection.

        Raises:
            ConnectError, ConnectionLostError, MalformedResponseError: there is no answer.
        """
        request = moved(request, self._elsewhere) if self._elsewhere else request
        for connection in (self.pool.take(), None):
            kept = connection is not None
            opened = connection or await self.pool.connect()
            try:
                return opened, await opened.send(request)
            except ConnectionLostError as error:
                opened.abort()
                if error.began or not kept:  # a kept connection may have been closed in this very moment
                    raise
            except BaseException:
                opened.abort()
                raise
        raise AssertionError  # the second one is new

    # -- what gets no answer

    def post_soon(self, session: HttpSession, body: bytes) -> None:
        """Send a notification or a response, in the background; a server that takes too many gets no more."""
        self.soon(self.post(session, body))

    def soon(self, courtesy: Coroutine[Any, Any, None]) -> None:
        """Do it in the background, unless too much is done there."""
        if len(self._background) >= MAX_BACKGROUND:
            courtesy.close()
            return
        task = asyncio.create_task(courtesy)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def post(self, session: HttpSession, body: bytes) -> None:
        """Send what gets no answer; it is a courtesy, so that a failure is only logged."""
        await self._courtesy(b"%bcontent-length: %d\r\n\r\n%b" % (session.head, len(body), body))

    async def end(self, session: HttpSession) -> None:
        """Tell a legacy server that its session is over; it may not care."""
        head = session.head.replace(b"POST ", b"DELETE ", 1)
        await self._courtesy(head.replace(b"content-type: application/json\r\n", b"", 1) + b"content-length: 0\r\n\r\n")

    async def _courtesy(self, request: bytes) -> None:
        try:
            async with asyncio.timeout(COURTESY_TIMEOUT_S):
                connection, _ = await self.open(request)
                self.pool.release(connection)
        except (ConnectError, ConnectionLostError, MalformedResponseError, TimeoutError) as error:
            logger.warning("upstream %s took no message from the gateway: %s", self.slug, error)

    # -- redirects

    def _target(self, error: RedirectError) -> bytes | None:
        """Where a redirect leads, as a path; None if that is another origin, which a request must not go to."""
        try:
            target = urlsplit(urljoin(self._url, error.location.decode("ascii")))
            port = target.port or _HTTP.get(target.scheme, 0)
        except ValueError:
            return None
        if (target.scheme, target.hostname, port) != self._origin:
            return None
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        return path.encode() if path.isprintable() and " " not in path else None

    async def _moved(
        self, session: HttpSession, request: UpstreamRequest, path: bytes, hops: int, error: RedirectError
    ) -> tuple[UpstreamResponse, HttpResponse]:
        """Follow a redirect; one that is permanent holds from now on."""
        if not self._elsewhere:
            logger.warning("upstream %s %s", self.slug, error)
        self._elsewhere = path
        if error.http_status == _PERMANENT:
            self.base_head = moved(self.base_head, path)
            session.move(path)
        return await self.attempt(session, request, path, hops + 1)
