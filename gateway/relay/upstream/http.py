"""MCP over Streamable HTTP, both eras: negotiation, sessions, and what an answer means.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/streamable-http; versioning, "Era detection".
"""

import asyncio
import itertools
import logging
import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from mcp_types.jsonrpc import HEADER_MISMATCH, MISSING_REQUIRED_CLIENT_CAPABILITY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.config import HttpServer
from gateway.mcp import jsonrpc, outbound, sse
from gateway.mcp.revisions import LATEST_MODERN_VERSION, Era
from gateway.relay.upstream.connection import (
    ConnectError,
    Connection,
    ConnectionLostError,
    MalformedAnswerError,
    Pool,
    Response,
)
from gateway.relay.upstream.seam import Changed, Exchange, Reply, UpstreamError

logger = logging.getLogger(__name__)

NEGOTIATION_TIMEOUT_S: Final = 10.0
_MODERN_CODES: Final = frozenset({MISSING_REQUIRED_CLIENT_CAPABILITY, HEADER_MISMATCH})
"""JSON-RPC codes that only a modern server answers."""
_OK: Final = 200
_REDIRECT: Final = range(300, 400)
_BAD_REQUEST: Final = 400
_NOT_FOUND: Final = 404
_HTTP_ERROR: Final = ErrorType.UPSTREAM_HTTP_ERROR
_SHOWN_BYTES: Final = 65536
_MAX_HEADS: Final = 4096
_MAX_BACKGROUND: Final = 64
"""Answers to a server's own requests that may be on their way to it; to one that asks faster no more are sent."""
_SHOWN_TARGET: Final = 256

_SECRET_PART: Final = re.compile("[?#]")
"""Where the part of a URL begins that may hold a key."""

PoolOf = Callable[[str, int, bool], Pool]
"""The process's pool for an origin: host, port, whether TLS."""


class _Session:
    """What negotiation settled: the era, the legacy session, and the head of every request."""

    __slots__ = ("_heads", "_is_modern", "era", "head", "session_id")

    def __init__(self, era: Era, session_id: bytes | None, head: bytes) -> None:
        self.era = era
        self._is_modern = era is Era.MODERN
        self.session_id = session_id
        self.head = head
        self._heads: dict[tuple[str, str | None], bytes] = {}

    def head_of(self, method: str, name: str | None) -> bytes:
        """The head of a request by method and name; it is kept, as a catalogue has few of them."""
        head = self._heads.get((method, name))
        if head is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            head = self._heads[method, name] = self.head + outbound.headers(self.era, method, name)
        return head

    def message(self, exchange: Exchange, request_id: int) -> bytes:
        """A whole HTTP request."""
        traceparent, tracestate = exchange.traceparent, exchange.tracestate
        body = None
        if self._is_modern and exchange.method == "tools/call" and traceparent is not None and tracestate is None:
            body = outbound.call(request_id, exchange.params, exchange.meta, traceparent)
        if body is None:
            params = outbound.params(self.era, exchange.params, exchange.meta, traceparent, tracestate)
            body = jsonrpc.request(request_id, exchange.method, params)
        head = self.head_of(exchange.method, exchange.name)
        trace = outbound.trace_headers(traceparent, tracestate)
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, trace, len(body), body)


class HttpUpstream:
    """An upstream behind a URL. Any number of requests may be under way; one negotiation at a time."""

    def __init__(self, slug: str, server: HttpServer, pool_of: PoolOf) -> None:
        self.slug = slug
        url = urlsplit(server.url)
        tls = url.scheme == "https"
        host = url.hostname or ""
        default_port = 443 if tls else 80
        port = url.port or default_port
        self._pool = pool_of(host, port, tls)
        shown = f"[{host}]" if ":" in host else host
        self.address: str | None = f"{shown}:{port}"
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        authority = shown if port == default_port else self.address
        lines = [f"POST {path} HTTP/1.1", f"host: {authority}"]
        lines += [f"{name.lower()}: {value}" for name, value in server.headers.items()]
        lines += ["content-type: application/json", "accept: application/json, text/event-stream", ""]
        self._base_head = "\r\n".join(lines).encode()
        self._ids = itertools.count(1)
        self._session: _Session | None = None
        self._negotiating: asyncio.Task[_Session] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._listeners: dict[Changed, None] = {}

    @property
    def era(self) -> Era | None:
        """Which era the server speaks; None before the first contact."""
        return self._session.era if self._session else None

    @property
    def declared(self) -> Raw | None:
        """The server's capabilities; None before the first contact."""
        return None

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Hear of changes; see `Upstream.listen`."""
        self._listeners[changed] = None
        return lambda: self._listeners.pop(changed, None) and None

    async def subscribe(self, uris: frozenset[str]) -> None:
        """Ask for updates of just these resources."""

    async def request(self, exchange: Exchange) -> Reply:
        """Send a request and wait for its answer; a legacy session that is gone is begun anew, once.

        HTTP 404 says that it is gone, with a JSON-RPC error in the body or without (2025-11-25, transports).

        Raises:
            UpstreamError: see `Upstream.request`.
        """
        session = self._session or await self._negotiated()
        try:
            reply, response = await self._attempt(session, exchange)
            if response.status != _NOT_FOUND or session.session_id is None:
                return reply
        except UpstreamError as error:
            if error.http_status != _NOT_FOUND or session.session_id is None:
                raise
        if self._session is session:
            self._session = None
        exchange.acquired_ns = exchange.sent_ns = exchange.first_byte_ns = exchange.done_ns = 0  # the phases begin anew
        exchange.http_status = None
        reply, _ = await self._attempt(await self._negotiated(), exchange)
        return reply

    async def close(self) -> None:
        """Stop what runs for this server; its connections belong to the process."""
        tasks = [*self._background, *([self._negotiating] if self._negotiating else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one exchange

    async def _attempt(self, session: _Session, exchange: Exchange) -> tuple[Reply, Response]:
        """Send it over a kept connection or a new one, and say of every failure what it means.

        A kept connection may have been closed by the upstream in the very moment of sending. Whether the upstream ran
        the request then, nobody can tell: only what is repeatable is sent again.
        """
        connection = self._pool.take()
        try:
            if connection is not None:
                try:
                    return await self._over(connection, session, exchange)
                except ConnectionLostError as error:
                    if error.began or not connection.used or not exchange.repeatable:
                        raise
            return await self._over(await self._pool.connect(), session, exchange)
        except ConnectError as error:
            raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, str(error)) from error
        except ConnectionLostError as error:
            kind = ErrorType.UPSTREAM_PROTOCOL_ERROR if error.began else ErrorType.UPSTREAM_UNREACHABLE
            raise UpstreamError(kind, str(error), http_status=exchange.http_status) from error
        except (MalformedAnswerError, sse.EventTooLargeError) as error:
            kind = ErrorType.UPSTREAM_PROTOCOL_ERROR
            raise UpstreamError(kind, str(error), http_status=exchange.http_status) from error

    async def _over(self, connection: Connection, session: _Session, exchange: Exchange) -> tuple[Reply, Response]:
        exchange.acquired_ns = time.perf_counter_ns()
        request_id = next(self._ids)
        try:
            answer = connection.send(session.message(exchange, request_id))
            exchange.sent_ns = time.perf_counter_ns()
            response = await answer
            exchange.http_status = response.status
            if response.streaming and response.status == _OK:
                reply = await self._follow(connection, session, exchange, request_id)
            else:
                reply = _read(response, request_id)
        except UpstreamError as error:
            exchange.first_byte_ns = connection.first_byte_ns
            if error.error_type is _HTTP_ERROR:
                self._pool.release(connection)
            else:  # who answers something else may still send the answer: it must not meet the next request
                connection.abort()
            raise
        except BaseException:
            exchange.first_byte_ns = connection.first_byte_ns
            connection.abort()
            raise
        exchange.first_byte_ns = connection.first_byte_ns
        exchange.done_ns = time.perf_counter_ns()
        self._pool.release(connection)
        return reply, response

    async def _follow(self, connection: Connection, session: _Session, exchange: Exchange, request_id: int) -> Reply:
        """Read an event stream up to the response; what comes before it belongs to the request."""
        parser = sse.Parser()
        async for chunk in connection.stream():
            for event in parser.feed(chunk):
                if event.event != "message" or not event.data:
                    continue  # another kind, or one that only has an id to resume at (2025-11-25, "priming")
                message = _decode(event.data)
                if message.method is UNSET:
                    return _reply(message, len(event.data), request_id)
                if message.id is not UNSET:
                    self._answer_server(session, message)
                elif exchange.notify is not None:
                    await exchange.notify(event.data)
        raise UpstreamError(
            ErrorType.UPSTREAM_PROTOCOL_ERROR, "ended its event stream without an answer", http_status=_OK
        )

    def _answer_server(self, session: _Session, message: jsonrpc.Message) -> None:
        """A legacy server may ask its client: `ping` is answered, all else refused, as no capability was declared."""
        if message.id is UNSET or len(self._background) >= _MAX_BACKGROUND:
            return
        if message.method == "ping":
            body = jsonrpc.result(message.id, jsonrpc.EMPTY_OBJECT)
        else:
            refusal = jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, f"the gateway does not serve {message.method}")
            body = jsonrpc.error(message.id, refusal)
        task = asyncio.create_task(self._post(session, body))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _post(self, session: _Session, body: bytes) -> None:
        """Send what gets no answer; it is a courtesy, so that a failure is only logged."""
        try:
            async with asyncio.timeout(NEGOTIATION_TIMEOUT_S):
                connection = self._pool.take() or await self._pool.connect()
                try:
                    await connection.send(b"%bcontent-length: %d\r\n\r\n%b" % (session.head, len(body), body))
                finally:
                    self._pool.release(connection)
        except (ConnectError, ConnectionLostError, MalformedAnswerError, TimeoutError) as error:
            logger.warning("upstream %s took no message from the gateway: %s", self.slug, error)

    # -- negotiation

    async def _negotiated(self) -> _Session:
        """The session, negotiated by one task however many wait; a cancelled waiter leaves it running."""
        if self._session is not None:
            return self._session
        if self._negotiating is None:
            self._negotiating = asyncio.create_task(self._negotiate())
            self._negotiating.add_done_callback(self._settled)
        negotiating = self._negotiating
        try:
            return await asyncio.shield(negotiating)
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if not negotiating.cancelled() or (waiting is not None and waiting.cancelling()):
                raise
            raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, "is not served any more") from None

    def _settled(self, task: asyncio.Task[_Session]) -> None:
        self._negotiating = None
        if not task.cancelled() and task.exception() is None:
            self._session = task.result()

    async def _negotiate(self) -> _Session:
        try:
            async with asyncio.timeout(NEGOTIATION_TIMEOUT_S):
                return await self._discover() or await self._initialize()
        except TimeoutError as error:
            raise UpstreamError(
                ErrorType.UPSTREAM_TIMEOUT, f"did not finish its handshake within {NEGOTIATION_TIMEOUT_S:g} s"
            ) from error

    async def _discover(self) -> _Session | None:
        """Probe for the modern era; None is the verdict `legacy`. A server that cannot be reached has none."""
        head = self._base_head + b"mcp-protocol-version: %b\r\n" % LATEST_MODERN_VERSION.encode()
        modern = _Session(Era.MODERN, None, head)
        try:
            reply, _ = await self._attempt(modern, Exchange("server/discover", {}, repeatable=True))
        except UpstreamError as error:
            if error.http_status is None:
                raise
            return None
        if reply.error is not UNSET:
            return modern if _code(reply.error) in _MODERN_CODES else None
        versions = outbound.supported_versions(reply.result) if reply.result is not UNSET else []
        return modern if set(versions) & set(MODERN_PROTOCOL_VERSIONS) else None

    async def _initialize(self) -> _Session:
        """The legacy handshake; the session is the gateway's own, shared by all who call this server."""
        opening = _Session(Era.LEGACY, None, self._base_head)
        reply, response = await self._attempt(
            opening, Exchange("initialize", outbound.INITIALIZE_PARAMS, repeatable=True)
        )
        if reply.result is UNSET or reply.error is not UNSET:
            refusal = bytes(reply.error) if reply.error is not UNSET else b""
            raise UpstreamError(
                ErrorType.UPSTREAM_PROTOCOL_ERROR,
                "answered neither server/discover nor initialize with a result: is this the URL of an MCP server?",
                http_status=response.status,
                response=refusal,
            )
        head = self._base_head
        version = outbound.negotiated_version(reply.result)
        if version in HANDSHAKE_PROTOCOL_VERSIONS:
            head += b"mcp-protocol-version: %b\r\n" % version.encode()
        session_id = response.headers.get(b"mcp-session-id")
        if session_id is not None:
            head += b"mcp-session-id: %b\r\n" % session_id
        session = _Session(Era.LEGACY, session_id, head)
        await self._post(session, jsonrpc.notification("notifications/initialized"))
        return session


def _decode(data: bytes) -> jsonrpc.Message:
    try:
        if not data.isascii():
            data.decode()  # what stays undecoded here is sent on
        return jsonrpc.decode_message(data)
    except jsonrpc.NO_JSON as error:
        raise _garbage(data, error) from error


def _decode_response(data: bytes) -> jsonrpc.Response:
    try:
        if not data.isascii():
            data.decode()
        return jsonrpc.decode_response(data)
    except jsonrpc.NO_JSON as error:
        raise _garbage(data, error) from error


def _code(error: Raw) -> int | None:
    try:
        return jsonrpc.decode_error(error).code
    except jsonrpc.NO_JSON:
        return None


def _garbage(data: bytes, error: Exception) -> UpstreamError:
    message = f"answered what is no JSON-RPC: {error}"
    return UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, message, response=data[:_SHOWN_BYTES])


def _reply(message: jsonrpc.Message | jsonrpc.Response, size: int, request_id: int) -> Reply:
    """The response in a message, if it is the one to our request; an error may have come before the id was read."""
    if message.id == request_id and message.error is UNSET and message.result is not UNSET:
        return Reply(message.result, UNSET, size)
    if message.error is not UNSET and message.id in (request_id, None):
        return Reply(error=message.error, size=size)
    raise UpstreamError(
        ErrorType.UPSTREAM_PROTOCOL_ERROR, "answered with a JSON-RPC message that is no response to the request"
    )


def _read(response: Response, request_id: int) -> Reply:
    """What an answer that came whole means. A JSON-RPC error counts whatever the HTTP status is."""
    status = response.status
    try:
        reply = _reply(_decode_response(response.body), len(response.body), request_id)
    except UpstreamError as error:
        if status in _REDIRECT:
            target = _SECRET_PART.split(response.headers.get(b"location", b"").decode("latin-1"))[0][:_SHOWN_TARGET]
            message, kind = f"redirects (HTTP {status}) to {target!r}: name that URL instead", _HTTP_ERROR
        elif status >= _BAD_REQUEST:
            message, kind = f"answered HTTP {status}", _HTTP_ERROR
        elif not response.body:
            message, kind = f"answered HTTP {status} without a JSON-RPC response", error.error_type
        else:
            message, kind = str(error), error.error_type
        raise UpstreamError(kind, message, http_status=status, response=response.body[:_SHOWN_BYTES]) from error
    if status >= _BAD_REQUEST and reply.error is UNSET:
        raise UpstreamError(
            _HTTP_ERROR, f"answered HTTP {status}", http_status=status, response=response.body[:_SHOWN_BYTES]
        )
    return reply
