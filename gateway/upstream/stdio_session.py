"""JSON-RPC with one server process: which request waits for which answer, and whose what comes without one is.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/stdio; patterns/progress and patterns/cancellation.
The official SDK's `stdio_client` decodes and encodes every message anew; here the bytes of an answer stay as they are.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.mcp import cancellation, capabilities, jsonrpc, log_levels, subscriptions
from gateway.mcp.log_levels import LEVELS
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import Filter
from gateway.upstream import request_meta
from gateway.upstream.base import Notify, UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.server_requests import ServerRequests
from gateway.upstream.subprocess import Subprocess

logger = logging.getLogger(__name__)

MAX_NOTES: Final = 256
"""Notifications kept for a client that is slower than the server; then the oldest goes."""
TOKEN: Final = "progressToken"  # noqa: S105 - the member's name in MCP
_MAX_DIGITS: Final = 18
_NO_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_PROTOCOL_ERROR: Final = ErrorType.UPSTREAM_PROTOCOL_ERROR
_UNREACHABLE: Final = ErrorType.UPSTREAM_UNREACHABLE


class PendingRequest:
    """A request that waits: for its answer, and for what the process tells in the meantime."""

    __slots__ = ("answer", "asked", "changed", "done_ns", "first_byte_ns", "notes", "request", "token")

    def __init__(self, request: UpstreamRequest | None, token: Raw | None, asked: ServerRequests | None) -> None:
        self.answer: asyncio.Future[UpstreamResponse | UpstreamError] = asyncio.get_running_loop().create_future()
        self.request = request
        """None: a request of the gateway's own, of a handshake or a subscription."""
        self.token = token
        """The client's own; upstream it is the request's id, which is unique."""
        self.asked = asked
        self.notes: deque[bytes] = deque(maxlen=MAX_NOTES)
        self.changed = asyncio.Event()
        self.first_byte_ns = self.done_ns = 0

    def settle(self, answer: UpstreamResponse | UpstreamError) -> None:
        """End the waiting."""
        if not self.answer.done():
            self.answer.set_result(answer)
            self.changed.set()

    def note(self, message: bytes) -> None:
        """Keep a notification for the client."""
        self.notes.append(message)
        self.changed.set()

    async def reply(self, notify: Notify | None) -> UpstreamResponse:
        """Pass on what comes before the answer, then the answer."""
        while notify is not None:
            while self.notes:
                await notify(self.notes.popleft())
            if self.answer.done():
                break
            await self.changed.wait()
            self.changed.clear()
        answer = await self.answer
        if isinstance(answer, UpstreamError):
            raise answer
        return answer


class StdioSession:
    """What one process has been sent and has answered."""

    def __init__(self, slug: str, listeners: ChangeNotifier, *, probing: bool) -> None:
        self.probing = probing
        """Whether the probe for the modern era is all that it has been sent, and has no answer."""
        self._slug = slug
        self._listeners = listeners
        self._pending: dict[int, PendingRequest] = {}
        self._acknowledging: dict[int, asyncio.Future[Filter]] = {}
        self._nobody = ServerRequests(None, self.answer)
        self._log_level: str | None = None
        self._junk = 0
        self.child: Subprocess
        self.era: Era | None = None
        self.declared: Raw | None = None
        self.subscribed: frozenset[str] = frozenset()
        self.began = asyncio.get_running_loop().time()

    @property
    def idle(self) -> bool:
        """Whether no request of a client waits."""
        return all(pending.request is None for pending in self._pending.values())

    async def send(
        self,
        request_id: int,
        method: str,
        params: Mapping[str, Any],
        request: UpstreamRequest | None = None,
        token: Raw | None = None,
    ) -> PendingRequest:
        """Write a request as soon as the process reads; `forget` it when nobody waits any more.

        Raises:
            UpstreamError: the process has ended.
        """
        await self.child.writable()
        if self.child.ended:
            raise self.failure()
        line = jsonrpc.request(request_id, method, dict(params))
        client = request.client if request is not None else None
        asked = ServerRequests(client, self.answer) if client is not None else None
        pending = self._pending[request_id] = PendingRequest(request, token, asked)
        self.child.write(line)
        return pending

    def answer(self, body: bytes) -> None:
        """Answer a request of the server's."""
        if not self.child.lost:
            self.child.write_courtesy(body)

    def forget(self, request_id: int) -> None:
        """Wait no more; a process that has not answered yet is told so."""
        pending = self._pending.pop(request_id, None)
        if pending is None:
            return
        if pending.asked is not None:
            pending.asked.end()
        if not self.child.lost:
            self.child.write_courtesy(cancellation.notification(request_id, "the client waits no more"))

    def acknowledgement(self, subscription: int) -> asyncio.Future[Filter]:
        """What the server keeps to, when it has acknowledged `subscriptions/listen` with this id."""
        future = self._acknowledging[subscription] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._acknowledging.pop(subscription, None))
        return future

    def raise_level(self, level: str | None) -> str | None:
        """The level to ask a legacy server for, so that it sends at least these messages; None: it does already."""
        if level is None or self.era is Era.MODERN or capabilities.read_server(self.declared).logging is None:
            return None
        if self._log_level is not None and LEVELS.index(self._log_level) <= LEVELS.index(level):
            return None
        self._log_level = level
        return level

    def failure(self) -> UpstreamError:
        """What every request of a process that has ended fails with."""
        return UpstreamError(_PROTOCOL_ERROR if self.child.line_too_long else _UNREACHABLE, self.child.ending)

    def fail(self) -> None:
        """End all waiting: the process has ended."""
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            if waiting.asked is not None:
                waiting.asked.end()
            waiting.settle(self.failure())
        for future in list(self._acknowledging.values()):
            future.cancel()

    # -- what the process says

    def receive(self, line: bytes, began_ns: int) -> None:
        """Take one line of the process: an answer, a notification, a request, or what is none of them."""
        if not line.strip():
            return
        try:
            message = jsonrpc.decode_message(line)
        except _NO_JSON:
            self._count_junk(line)
            return
        if message.jsonrpc != "2.0" or (message.method is UNSET and message.id is UNSET):
            self._count_junk(line)
        elif message.method is UNSET:
            self._answered(message, line, began_ns)
        elif message.id is UNSET or message.id is None:
            self._notified(message, line)
        else:
            self._asked().take(message)

    def _count_junk(self, line: bytes) -> None:
        """Some servers print to stdout; the first line of it is worth a warning, as it may explain a silence."""
        self._junk += 1
        level = logging.WARNING if self._junk == 1 else logging.DEBUG
        logger.log(level, "server %s: line %d on stdout is no JSON-RPC: %r", self._slug, self._junk, line[:200])

    def _answered(self, message: jsonrpc.Message, line: bytes, began_ns: int) -> None:
        pending = self._pending.pop(message.id, None) if isinstance(message.id, int) else None
        if pending is None:
            logger.debug("server %s: an answer to nothing that waits, id %r", self._slug, message.id)
            return
        if pending.asked is not None:
            pending.asked.end()
        pending.first_byte_ns, pending.done_ns = began_ns, time.perf_counter_ns()
        if not _is_utf8(line):
            pending.settle(UpstreamError(_PROTOCOL_ERROR, "answered with text that is no UTF-8"))
        elif message.error is not UNSET:
            pending.settle(UpstreamResponse(UNSET, message.error, len(line), self.era))
        elif message.result is not UNSET:
            pending.settle(UpstreamResponse(message.result, UNSET, len(line), self.era))
        else:
            pending.settle(UpstreamError(_PROTOCOL_ERROR, "answered with neither a result nor an error"))

    def _notified(self, message: jsonrpc.Message, line: bytes) -> None:
        """A change is everybody's; what names a progress token of ours goes to its request, with the client's token."""
        method, params = str(message.method), message.params if message.params is not UNSET else {}
        if method in subscriptions.CHANGES:
            self._listeners.tell(method, params)
        elif method == subscriptions.ACKNOWLEDGED:
            self._acknowledged(params)
        elif method == cancellation.METHOD:
            cancelled = cancellation.read(params)
            if cancelled is not None and self.era is Era.MODERN:
                self._torn_down(cancelled.request_id)
            elif cancelled is not None:
                self._asked().cancel(cancelled.request_id)
        elif method == log_levels.METHOD:
            self._logged(method, params, line)
        else:
            self._progressed(method, params)

    def _progressed(self, method: str, params: jsonrpc.Params) -> None:
        token = bytes(params.get(TOKEN, b""))
        pending = self._pending.get(int(token)) if token.isdigit() and len(token) <= _MAX_DIGITS else None
        if pending is None or pending.token is None:
            logger.debug("server %s: %s belongs to no request", self._slug, method)
            return
        pending.note(jsonrpc.notification(method, {**params, TOKEN: pending.token}))

    def _logged(self, method: str, params: jsonrpc.Params, line: bytes) -> None:
        """A log message does not say what it belongs to: it is the only request's, if there is but one."""
        waiting = [pending for pending in self._pending.values() if pending.request is not None]
        request = waiting[0].request if len(waiting) == 1 else None
        if request is None or not _is_utf8(line):
            return
        if self.era is Era.MODERN:
            wanted = log_levels.passes(params, request_meta.log_level(request))
        else:
            wanted = request_meta.wants(request, method, params)
        if wanted:
            waiting[0].note(line)

    def _acknowledged(self, params: jsonrpc.Params) -> None:
        future = self._acknowledging.get(_subscription_of(params))
        if future is not None and not future.done():
            future.set_result(subscriptions.read_acknowledged(params))

    def _torn_down(self, request_id: jsonrpc.Id) -> None:
        """A modern server ends a subscription, which is all that it may cancel."""
        if not isinstance(request_id, int):
            return
        pending = self._pending.get(request_id)
        if pending is not None and pending.request is None:
            del self._pending[request_id]
            pending.settle(UpstreamError(_PROTOCOL_ERROR, "cancelled the subscription"))

    def _asked(self) -> ServerRequests:
        """Who answers a question, which does not say what it belongs to: the only client that can be meant, if any."""
        able = [pending.asked for pending in self._pending.values() if pending.asked is not None]
        return able[0] if len(able) == 1 else self._nobody


def _subscription_of(params: jsonrpc.Params) -> int:
    """The id of the `subscriptions/listen` that a notification belongs to; 0, which no request has, if of none."""
    try:
        meta = jsonrpc.decode_params(params.get("_meta", b"{}"))
    except jsonrpc.NO_JSON:
        return 0
    written = bytes(meta.get(SUBSCRIPTION_ID_META_KEY, b""))
    return int(written) if written.isdigit() and len(written) <= _MAX_DIGITS else 0


def _is_utf8(line: bytes) -> bool:
    """What stays undecoded is not looked at by the decoder."""
    try:
        return line.isascii() or bool(line.decode())
    except UnicodeDecodeError:
        return False
