"""The way of one request to a server over HTTP: over a kept connection or a new one, and what its failure means.

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
from gateway.upstream.base import CANCEL_REASON, UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.http_response import OK, RedirectError, read
from gateway.upstream.http_session import HttpSession, LegacyHttpSession, with_path
from gateway.upstream.response_stream import ResponseStream
from gateway.upstream.server_subscriptions import ChangeNotifier

logger = logging.getLogger(__name__)

POST_TIMEOUT_S: Final = 10.0
"""For a message that gets no JSON-RPC response."""
MAX_BACKGROUND: Final = 64
"""Such messages under way to one server at a time; a server that causes more of them does not get those."""
MAX_REDIRECTS: Final = 3
MAX_RESUMES: Final = 10
"""Of one response stream, in a row, without any new event."""
_PERMANENT_REDIRECT: Final = 308
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PROTOCOL_ERROR: Final = ErrorType.UPSTREAM_PROTOCOL_ERROR

PoolFactory = Callable[[str, int, bool], Pool]
"""The process's pool for an origin: host, port, whether TLS."""
FAILURES: Final = (ConnectError, ConnectionLostError, MalformedResponseError, sse.EventTooLargeError)
"""Why there is no whole response."""


class HttpTransport:
    """The way to one URL."""

    def __init__(self, slug: str, server: HttpServer, pool_for: PoolFactory, notifier: ChangeNotifier) -> None:
        self.slug = slug
        self.notifier = notifier
        self._url = server.url
        url = urlsplit(server.url)
        host = url.hostname or ""
        default_port = _DEFAULT_PORTS[url.scheme]
        port = url.port or default_port
        self._origin = (url.scheme, host, port)
        self.pool = pool_for(host, port, url.scheme == "https")
        bracketed = f"[{host}]" if ":" in host else host
        self.address = f"{bracketed}:{port}"
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        lines = [f"POST {path} HTTP/1.1", f"host: {bracketed if port == default_port else self.address}"]
        lines += [f"{name.lower()}: {value}" for name, value in server.headers.items()]
        lines += ["content-type: application/json", "accept: application/json, text/event-stream", ""]
        self.base_head = "\r\n".join(lines).encode()
        self._redirected_path = b""
        """Where the last redirect led to; what is not sent by `attempt` goes there at once."""
        self.ids = itertools.count(1)
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop what runs for this server; its connections belong to the process."""
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one request

    async def attempt(
        self, session: HttpSession, request: UpstreamRequest, path: bytes = b"", hops: int = 0
    ) -> tuple[UpstreamResponse, HttpResponse]:
        """Send a request over a kept connection or a new one, and turn every failure into an `UpstreamError`.

        The upstream may have closed a kept connection in the very moment of sending. Nobody knows whether it has run
        the request then: only what is repeatable is sent again.
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
            self._redirect(session, target, error)
            return await self.attempt(session, request, target, hops + 1)
        except ConnectError as error:
            raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, str(error)) from error
        except ConnectionLostError as error:
            kind = _PROTOCOL_ERROR if error.began else ErrorType.UPSTREAM_UNREACHABLE
            raise UpstreamError(kind, str(error), http_status=request.http_status) from error
        except (MalformedResponseError, sse.EventTooLargeError) as error:
            raise UpstreamError(_PROTOCOL_ERROR, str(error), http_status=request.http_status) from error

    async def _over(
        self, connection: Connection, session: HttpSession, request: UpstreamRequest, path: bytes
    ) -> tuple[UpstreamResponse, HttpResponse]:
        request.acquired_ns = time.perf_counter_ns()
        request_id = next(self.ids)
        try:
            message = session.encode(request, request_id)
            receiving = connection.send(with_path(message, path) if path else message)
            request.sent_ns = time.perf_counter_ns()
            response = await receiving
            request.http_status = response.status
            if response.streaming and response.status == OK:
                reply = await self._follow(connection, session, request, request_id)
            else:
                reply = read(response, request_id, session.era)
        except UpstreamError as error:
            request.first_byte_ns = connection.first_byte_ns
            if error.error_type is ErrorType.UPSTREAM_HTTP_ERROR:
                self.pool.release(connection)
            else:  # the right response may still follow: it must not be taken for that of the next request
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
        """A legacy server does not take a closed connection for a cancellation; `initialize` may not be cancelled."""
        if session.era is Era.LEGACY and request.sent_ns and request.method != "initialize":
            self.post_soon(session, cancellation.notification(request_id, CANCEL_REASON))

    def _redirect(self, session: HttpSession, path: bytes, error: RedirectError) -> None:
        """Remember where a redirect leads to; a permanent one holds for all later requests."""
        if not self._redirected_path:
            logger.warning("upstream %s %s", self.slug, error)
        self._redirected_path = path
        if error.http_status == _PERMANENT_REDIRECT:
            self.base_head = with_path(self.base_head, path)
            session.move(path)

    def _target(self, error: RedirectError) -> bytes | None:
        """The path that a redirect leads to; None if that is another origin: the headers may hold secrets."""
        try:
            target = urlsplit(urljoin(self._url, error.location.decode("ascii")))
            port = target.port or _DEFAULT_PORTS.get(target.scheme, 0)
        except ValueError:
            return None
        if (target.scheme, target.hostname, port) != self._origin:
            return None
        path = (target.path or "/") + (f"?{target.query}" if target.query else "")
        return path.encode() if path.isprintable() and " " not in path else None

    # -- streams

    async def _follow(
        self, connection: Connection, session: HttpSession, request: UpstreamRequest, request_id: int
    ) -> UpstreamResponse:
        """Read an event stream up to the response; a legacy server may give the rest of one that broke."""
        stream = ResponseStream(session, request, request_id, self.notifier)
        try:
            reply = await stream.until_response(connection)
        except ConnectionLostError:
            reply = await self._resumed(session, stream)
            if reply is None:
                raise
        else:
            reply = reply or await self._resumed(session, stream)
        if reply is None:
            raise UpstreamError(_PROTOCOL_ERROR, "ended its event stream without a response", http_status=OK)
        return reply

    async def _resumed(self, session: HttpSession, stream: ResponseStream) -> UpstreamResponse | None:
        """The response from the rest of a stream whose events had ids; None if the server does not give it."""
        tries, seen = 0, stream.parser.last_id
        while isinstance(session, LegacyHttpSession) and stream.parser.last_id and tries < MAX_RESUMES:
            await asyncio.sleep(stream.retry_s)
            stream.resume()
            try:
                connection, response = await self.get(session, stream.parser.last_id)
            except FAILURES:
                return None
            try:
                if response.status != OK or not response.streaming:
                    return None
                reply = await stream.until_response(connection)
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
        """Open a legacy session's own event stream; the caller aborts the connection."""
        head = session.head.replace(b"POST ", b"GET ", 1)
        head = head.replace(b"content-type: application/json\r\naccept: application/json, ", b"accept: ", 1)
        if last_event_id is not None and last_event_id.isascii() and last_event_id.isprintable():
            head += b"last-event-id: %b\r\n" % last_event_id.encode()
        return await self.open(head + b"\r\n")

    async def open(self, request: bytes) -> tuple[Connection, HttpResponse]:
        """Send a request that may be sent twice, as it opens a stream; the caller aborts the connection."""
        if self._redirected_path:
            request = with_path(request, self._redirected_path)
        connection = self.pool.take()
        if connection is not None:
            try:
                return connection, await self._sent(connection, request)
            except ConnectionLostError as error:
                if error.began:
                    raise
        connection = await self.pool.connect()
        return connection, await self._sent(connection, request)

    @staticmethod
    async def _sent(connection: Connection, request: bytes) -> HttpResponse:
        try:
            return await connection.send(request)
        except BaseException:
            connection.abort()
            raise

    # -- messages that get no response

    def post_soon(self, session: HttpSession, body: bytes) -> None:
        """Send a notification or a response in the background, unless too many are under way."""
        self.run_soon(self.post(session, body))

    def run_soon(self, posting: Coroutine[Any, Any, None]) -> None:
        if len(self._background) >= MAX_BACKGROUND:
            posting.close()
            return
        task = asyncio.create_task(posting)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def post(self, session: HttpSession, body: bytes) -> None:
        """Send a message that gets no response; a failure is only logged."""
        await self._post(b"%bcontent-length: %d\r\n\r\n%b" % (session.head, len(body), body))

    async def end(self, session: HttpSession) -> None:
        """Tell a legacy server that its session is over; it may ignore that."""
        head = session.head.replace(b"POST ", b"DELETE ", 1)
        await self._post(head.replace(b"content-type: application/json\r\n", b"", 1) + b"content-length: 0\r\n\r\n")

    async def _post(self, request: bytes) -> None:
        try:
            async with asyncio.timeout(POST_TIMEOUT_S):
                connection, _ = await self.open(request)
                self.pool.release(connection)
        except (ConnectError, ConnectionLostError, MalformedResponseError, TimeoutError) as error:
            logger.warning("upstream %s took no message from the gateway: %s", self.slug, error)
