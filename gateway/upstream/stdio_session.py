"""JSON-RPC with one server process: which request waits for which response, and whose the other messages are.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/stdio; patterns/progress and patterns/cancellation.
The official SDK's `stdio_client` decodes and encodes every message; here the bytes of a response stay as they are.
"""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.mcp import cancellation, jsonrpc, log_levels, outbound, subscriptions
from gateway.mcp.revisions import Era
from gateway.upstream.base import (
    CANCEL_REASON,
    Notify,
    ServerSession,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
)
from gateway.upstream.server_requests import ServerRequests
from gateway.upstream.server_subscriptions import ChangeNotifier
from gateway.upstream.subprocess import Subprocess

logger = logging.getLogger(__name__)

MAX_NOTIFICATIONS: Final = 256
"""Kept for a client that is slower than the server; then the oldest is dropped."""
_TOKEN: Final = "progressToken"  # noqa: S105 - the member's name in MCP
_MAX_DIGITS: Final = 18
_PROTOCOL_ERROR: Final = ErrorType.UPSTREAM_PROTOCOL_ERROR


class PendingRequest:
    """A request that waits for its response, and for the notifications that come before it."""

    __slots__ = (
        "_notifications",
        "_progress",
        "done_ns",
        "first_byte_ns",
        "is_clients",
        "request",
        "response",
        "server_requests",
        "token",
    )

    def __init__(self, request: UpstreamRequest | None, token: Raw | None, respond: Callable[[bytes], None]) -> None:
        self.response: asyncio.Future[UpstreamResponse | UpstreamError] = asyncio.get_running_loop().create_future()
        self.request = request
        """None: a request of the handshake."""
        self.is_clients = request is not None and request.method != subscriptions.METHOD
        """Whether it is not the gateway's own, of the handshake or a subscription."""
        self.token = token
        """The client's progress token; the server gets the request's id instead, which is unique."""
        client = request.client if request is not None else None
        self.server_requests = ServerRequests(client, respond) if client is not None else None
        self._notifications: deque[bytes] = deque(maxlen=MAX_NOTIFICATIONS)
        self._progress = asyncio.Event()
        self.first_byte_ns = self.done_ns = 0

    def finish(self, response: UpstreamResponse | UpstreamError) -> None:
        self.close()
        if not self.response.done():
            self.response.set_result(response)
            self._progress.set()

    def close(self) -> None:
        if self.server_requests is not None:
            self.server_requests.close()

    def add_notification(self, message: bytes) -> None:
        self._notifications.append(message)
        self._progress.set()

    async def until_response(self, notify: Notify | None = None) -> UpstreamResponse:
        """Pass on the notifications that come before the response, then return it."""
        while notify is not None:
            while self._notifications:
                await notify(self._notifications.popleft())
            if self.response.done():
                break
            await self._progress.wait()
            self._progress.clear()
        response = await self.response
        if isinstance(response, UpstreamError):
            raise response
        return response


class StdioSession(ServerSession):
    """What one process has been sent, and has sent. Its era is `LEGACY` until the handshake says otherwise."""

    def __init__(self, slug: str, notifier: ChangeNotifier, *, probing: bool) -> None:
        super().__init__(Era.LEGACY)
        self.probing = probing
        """Whether it has been sent nothing but the probe for the modern era, and has not responded."""
        self.is_ready = False
        """Whether the handshake is done."""
        self.process: Subprocess
        self.began = asyncio.get_running_loop().time()
        self._slug = slug
        self._notifier = notifier
        self._ids = itertools.count(1)
        self._pending: dict[int, PendingRequest] = {}
        self._no_client = ServerRequests(None, self._respond)
        self._junk_lines = 0

    @property
    def is_idle(self) -> bool:
        """Whether no request of a client waits."""
        return not any(pending.is_clients for pending in self._pending.values())

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for the response; see `Upstream.request`."""
        request_id = next(self._ids)
        meta = request.meta_for(self.era)
        token = meta.get(_TOKEN)
        if token is not None:
            meta = {**meta, _TOKEN: jsonrpc.raw(request_id)}
        params = outbound.params(self.era, request.params, meta, request.traceparent, request.tracestate)
        pending = await self._send(request_id, request.method, params, request, token)
        try:
            await self.process.writable()
            request.sent_ns = time.perf_counter_ns()
            return await pending.until_response(request.notify)
        finally:
            self._forget(request_id)
            request.first_byte_ns, request.done_ns = pending.first_byte_ns, pending.done_ns

    async def send(self, method: str, params: Mapping[str, Any]) -> PendingRequest:
        """Send a request of the handshake, or one whose response does not matter."""
        return await self._send(next(self._ids), method, params)

    async def _send(
        self,
        request_id: int,
        method: str,
        params: Mapping[str, Any],
        request: UpstreamRequest | None = None,
        token: Raw | None = None,
    ) -> PendingRequest:
        await self.process.writable()
        if self.process.ended:
            raise self._failure()
        line = jsonrpc.request(request_id, method, dict(params))
        pending = self._pending[request_id] = PendingRequest(request, token, self._respond)
        self.process.write(line)
        return pending

    def _forget(self, request_id: int) -> None:
        """Wait no more; a process that has not responded yet gets a cancellation."""
        pending = self._pending.pop(request_id, None)
        if pending is not None:
            pending.close()
            self._respond(cancellation.notification(request_id, CANCEL_REASON))

    def fail(self) -> None:
        """End all waiting: the process has ended."""
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            waiting.finish(self._failure())

    def _failure(self) -> UpstreamError:
        kind = _PROTOCOL_ERROR if self.process.line_too_long else ErrorType.UPSTREAM_UNREACHABLE
        return UpstreamError(kind, self.process.ending)

    def _respond(self, message: bytes) -> None:
        """Send a message that gets no response."""
        if not self.process.lost:
            self.process.write_unless_full(message)

    # -- what the process sends

    def receive(self, line: bytes, began_ns: int) -> None:
        """Take one line of the process: a response, a notification, a request, or none of them."""
        if not line.strip():
            return
        try:
            message = jsonrpc.decode_message(line)
        except jsonrpc.DECODE_ERRORS:
            self._count_junk(line)
            return
        if message.jsonrpc != "2.0" or (message.method is UNSET and message.id is UNSET):
            self._count_junk(line)
        elif message.method is UNSET:
            self._response(message, line, began_ns)
        elif message.id is UNSET or message.id is None:
            self._notification(message.method, message.params if message.params is not UNSET else {}, line)
        else:
            self._server_requests().receive(message)

    def _count_junk(self, line: bytes) -> None:
        """Some servers print to stdout; the first such line is worth a warning, as it may explain a silence."""
        self._junk_lines += 1
        level = logging.WARNING if self._junk_lines == 1 else logging.DEBUG
        logger.log(level, "server %s: line %d on stdout is not JSON-RPC: %r", self._slug, self._junk_lines, line[:200])

    def _response(self, message: jsonrpc.Message, line: bytes, began_ns: int) -> None:
        pending = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
        if pending is None:
            logger.debug("server %s: a response to nothing that waits, id %r", self._slug, message.id)
            return
        pending.first_byte_ns, pending.done_ns = began_ns, time.perf_counter_ns()
        if not _is_utf8(line):
            pending.finish(UpstreamError(_PROTOCOL_ERROR, "answered with text that is not UTF-8"))
        elif message.error is not UNSET:
            pending.finish(UpstreamResponse(UNSET, message.error, len(line), self.era))
        elif message.result is not UNSET:
            pending.finish(UpstreamResponse(message.result, UNSET, len(line), self.era))
        else:
            pending.finish(UpstreamError(_PROTOCOL_ERROR, "answered with neither a result nor an error"))

    def _notification(self, method: str, params: jsonrpc.Params, line: bytes) -> None:
        if method in subscriptions.CHANGES:
            self._notifier.notify(method, params)
        elif method == subscriptions.ACKNOWLEDGED:
            pending = self._pending.get(_subscription_id(params))
            if pending is not None:
                pending.add_notification(line)
        elif method == cancellation.METHOD and self.era is Era.MODERN:
            self._subscription_cancelled(params)
        elif method == cancellation.METHOD:
            self._server_requests().cancel(params)
        elif method == log_levels.METHOD:
            self._log_message(method, params, line)
        else:
            self._progress(method, params)

    def _progress(self, method: str, params: jsonrpc.Params) -> None:
        """A notification with one of our progress tokens belongs to that request; its client gets its own token."""
        token = bytes(params.get(_TOKEN, b""))
        pending = self._pending.get(int(token)) if token.isdigit() and len(token) <= _MAX_DIGITS else None
        if pending is None or pending.token is None:
            logger.debug("server %s: %s belongs to no request", self._slug, method)
            return
        pending.add_notification(jsonrpc.notification(method, {**params, _TOKEN: pending.token}))

    def _log_message(self, method: str, params: jsonrpc.Params, line: bytes) -> None:
        """A log message does not say which request it belongs to: with more than one under way nobody gets it."""
        waiting = [pending for pending in self._pending.values() if pending.is_clients]
        request = waiting[0].request if len(waiting) == 1 else None
        if request is None or not _is_utf8(line):
            return
        if self.era is Era.MODERN:
            wanted = log_levels.passes(params, request.log_level)
        else:
            wanted = request.wants_notification(method, params)
        if wanted:
            waiting[0].add_notification(line)

    def _subscription_cancelled(self, params: jsonrpc.Params) -> None:
        """A modern server ends a subscription of the gateway's, which is all that it may cancel."""
        cancelled = cancellation.read(params)
        if cancelled is None or not isinstance(cancelled.request_id, int):
            return
        pending = self._pending.get(cancelled.request_id)
        if pending is not None and not pending.is_clients:
            del self._pending[cancelled.request_id]
            pending.finish(UpstreamError(_PROTOCOL_ERROR, "cancelled the subscription"))

    def _server_requests(self) -> ServerRequests:
        """Who answers the server's request, which does not say whom it is for: the only client, if there is one."""
        clients = [one.server_requests for one in self._pending.values() if one.server_requests is not None]
        return clients[0] if len(clients) == 1 else self._no_client


def _subscription_id(params: jsonrpc.Params) -> int:
    """The id of the `subscriptions/listen` that a notification belongs to; 0, which no request has, if of none."""
    try:
        meta = jsonrpc.decode_params(params.get("_meta", b"{}"))
    except jsonrpc.DECODE_ERRORS:
        return 0
    digits = bytes(meta.get(SUBSCRIPTION_ID_META_KEY, b""))
    return int(digits) if digits.isdigit() and len(digits) <= _MAX_DIGITS else 0


def _is_utf8(line: bytes) -> bool:
    """Members that stay `Raw` were not decoded, so not checked either."""
    try:
        return line.isascii() or bool(line.decode())
    except UnicodeDecodeError:
        return False
