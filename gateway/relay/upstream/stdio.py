"""MCP over the standard streams of a process that the relay starts, both eras.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/stdio; versioning, "Era detection"; patterns/progress
and patterns/cancellation. The official SDK's `stdio_client` decodes and encodes every message anew; here the bytes of
an answer stay as they are.
"""

import asyncio
import functools
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from mcp.client.stdio import get_default_environment
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.config import StdioServer
from gateway.mcp import jsonrpc, outbound
from gateway.mcp.revisions import Era
from gateway.relay.upstream.child import Child, SpawnError
from gateway.relay.upstream.seam import Changed, Exchange, Notify, Reply, UpstreamError

logger = logging.getLogger(__name__)

PROBE_TIMEOUT_S: Final = 10.0
"""How long a process may take to answer `server/discover` before it is also asked to `initialize`."""
HANDSHAKE_TIMEOUT_S: Final = 60.0
"""From the start to the era; a package runner may have to download the server first."""
STEADY_S: Final = 10.0
"""A process that lived shorter than this is not started again at once."""
MIN_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
MAX_NOTES: Final = 256
"""Progress kept for a client that is slower than the server; then the oldest goes."""
_MAX_DIGITS: Final = 18
_NO_JSON: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_PROTOCOL_ERROR: Final = ErrorType.UPSTREAM_PROTOCOL_ERROR
_UNREACHABLE: Final = ErrorType.UPSTREAM_UNREACHABLE
_STOPPED: Final = "the gateway has stopped its process"
_TOKEN: Final = "progressToken"  # noqa: S105 - the member's name in MCP


class _Pending:
    """A request that waits: for its answer, and for what the process tells of its progress."""

    __slots__ = ("answer", "changed", "done_ns", "first_byte_ns", "notes", "token")

    def __init__(self, token: Raw | None) -> None:
        self.answer: asyncio.Future[Reply | UpstreamError] = asyncio.get_running_loop().create_future()
        self.token = token
        """The client's own; upstream it is the request's id, which is unique."""
        self.notes: deque[bytes] = deque(maxlen=MAX_NOTES)
        self.changed = asyncio.Event()
        self.first_byte_ns = self.done_ns = 0

    def settle(self, answer: Reply | UpstreamError) -> None:
        """End the waiting."""
        if not self.answer.done():
            self.answer.set_result(answer)
            self.changed.set()

    async def reply(self, notify: Notify | None) -> Reply:
        """Pass on what comes before the answer, then the answer."""
        while self.token is not None and notify is not None:
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


class _Session:
    """JSON-RPC with one process: which request waits for which answer."""

    def __init__(self, slug: str, *, probing: bool) -> None:
        self.probing = probing
        """Whether the probe for the modern era is all that it has been sent, and has no answer."""
        self._slug = slug
        self._pending: dict[int, _Pending] = {}
        self._junk = 0
        self.child: Child
        self.era: Era | None = None
        self.began = asyncio.get_running_loop().time()

    async def send(self, request_id: int, method: str, params: Mapping[str, Any], token: Raw | None = None) -> _Pending:
        """Write a request as soon as the process reads; `forget` it when nobody waits any more.

        Raises:
            UpstreamError: the process has ended.
        """
        await self.child.writable()
        if self.child.ended:
            raise self.failure()
        line = jsonrpc.request(request_id, method, dict(params))
        pending = self._pending[request_id] = _Pending(token)
        self.child.write(line)
        return pending

    def forget(self, request_id: int) -> None:
        """Wait no more; a process that has not answered yet is told so."""
        if self._pending.pop(request_id, None) is not None and not self.child.lost:
            params = {"requestId": jsonrpc.raw(request_id), "reason": jsonrpc.raw("the client waits no more")}
            self.child.write_courtesy(jsonrpc.notification("notifications/cancelled", params))

    def failure(self) -> UpstreamError:
        """What every request of a process that has ended fails with."""
        return UpstreamError(_PROTOCOL_ERROR if self.child.line_too_long else _UNREACHABLE, self.child.ending)

    def fail(self) -> None:
        """End all waiting: the process has ended."""
        pending, self._pending = self._pending, {}
        for waiting in pending.values():
            waiting.settle(self.failure())

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
            self._notified(message)
        else:
            self._asked(message)

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
        pending.first_byte_ns, pending.done_ns = began_ns, time.perf_counter_ns()
        if not _is_utf8(line):
            pending.settle(UpstreamError(_PROTOCOL_ERROR, "answered with text that is no UTF-8"))
        elif message.error is not UNSET:
            pending.settle(Reply(error=message.error, size=len(line)))
        elif message.result is not UNSET:
            pending.settle(Reply(message.result, size=len(line)))
        else:
            pending.settle(UpstreamError(_PROTOCOL_ERROR, "answered with neither a result nor an error"))

    def _notified(self, message: jsonrpc.Message) -> None:
        """What names a progress token of ours goes to its request, with the client's token; nobody waits for others."""
        params = message.params if message.params is not UNSET else {}
        token = bytes(params.get(_TOKEN, b""))
        pending = self._pending.get(int(token)) if token.isdigit() and len(token) <= _MAX_DIGITS else None
        if pending is None or pending.token is None:
            logger.debug("server %s: %s belongs to no request", self._slug, message.method)
            return
        pending.notes.append(jsonrpc.notification(str(message.method), {**params, _TOKEN: pending.token}))
        pending.changed.set()

    def _asked(self, message: jsonrpc.Message) -> None:
        """A server may ask its client: `ping` is answered, all else refused, as no capability was declared."""
        if message.id is UNSET:
            return
        if message.method == "ping":
            answer = jsonrpc.result(message.id, jsonrpc.EMPTY_OBJECT)
        else:
            refusal = jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, f"the gateway does not serve {message.method}")
            answer = jsonrpc.error(message.id, refusal)
        self.child.write_courtesy(answer)


class StdioUpstream:
    """An upstream that is a process, started by the first request and again by the first after it ended.

    `era` is the last process's. A process that ends soon after its start is started again after a pause only, which
    doubles each time; requests within it fail at once.
    """

    def __init__(
        self,
        slug: str,
        server: StdioServer,
        *,
        probe_timeout: float = PROBE_TIMEOUT_S,
        handshake_timeout: float = HANDSHAKE_TIMEOUT_S,
        min_backoff: float = MIN_BACKOFF_S,
    ) -> None:
        self.slug = slug
        self.address: str | None = None
        self.era: Era | None = None
        self._command = (server.command, *server.args)
        self._environment = {**get_default_environment(), **server.env}
        self._cwd: Path | None = server.cwd
        self._probe_timeout = probe_timeout
        self._handshake_timeout = handshake_timeout
        self._min_backoff = min_backoff
        self._ids = itertools.count(1)
        self._session: _Session | None = None
        self._starting: asyncio.Task[_Session] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._probes = True
        self._deaths = 0
        """In a row, each soon after the start."""
        self._not_before = 0.0
        self._last_ending = ""
        self._closed = False
        self._listeners: dict[Changed, None] = {}

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
        """Send a request and wait for its answer; to be cancelled is to cancel it upstream.

        Raises:
            UpstreamError: see `Upstream.request`.
        """
        session = await self._running()
        exchange.acquired_ns = time.perf_counter_ns()
        request_id = next(self._ids)
        token, meta = exchange.meta.get(_TOKEN), exchange.meta
        if token is not None:
            meta = {**meta, _TOKEN: jsonrpc.raw(request_id)}
        era = session.era or Era.LEGACY
        params = outbound.params(era, exchange.params, meta, exchange.traceparent, exchange.tracestate)
        pending = await session.send(request_id, exchange.method, params, token)
        try:
            await session.child.writable()
            exchange.sent_ns = time.perf_counter_ns()
            return await pending.reply(exchange.notify)
        finally:
            session.forget(request_id)
            exchange.first_byte_ns, exchange.done_ns = pending.first_byte_ns, pending.done_ns

    async def close(self) -> None:
        """End the process and what it started; requests under way end as `upstream_unreachable`."""
        self._closed = True
        if self._session is not None:
            self._session.child.give_up(_STOPPED)
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    # -- the process

    async def _running(self) -> _Session:
        """A session with a process that lives, begun by one task however many wait for it."""
        if self._session is not None and self._session.era is not None and not self._session.child.lost:
            return self._session
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        starting = self._starting
        await asyncio.wait([starting])  # a waiter that is cancelled leaves it running
        return starting.result()

    def _started(self, task: asyncio.Task[_Session]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # perhaps nobody waits any more

    async def _start(self) -> _Session:
        """Start a process and settle its era.

        Servers on some SDKs end when their first request is not `initialize`: those get a second life without a probe.
        """
        await self._until_past()
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0:
            raise UpstreamError(
                _UNREACHABLE, f"{self._last_ending}; it is started again in {pause:.1f} s, if asked for"
            )
        if self._probes:
            session = await self._spawn(probing=True)
            try:
                return await self._shake_hands(session)
            except UpstreamError:
                if not session.probing or self._closed:
                    raise
            await self._until_past()
        self._probes = True
        session = await self._shake_hands(await self._spawn(probing=False))
        self._probes = False
        return session

    async def _until_past(self) -> None:
        """Wait until the process before is no more: two might fight for what a server has to itself."""
        if self._session is not None:
            await self._session.child.until_ended()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    async def _spawn(self, *, probing: bool) -> _Session:
        session = _Session(self.slug, probing=probing)
        session.child = Child(self.slug, session.receive, functools.partial(self._ended, session))
        try:
            await session.child.start(self._command, self._environment, self._cwd)
        except SpawnError as error:
            raise UpstreamError(_UNREACHABLE, str(error)) from error
        self._session = session
        if self._closed:
            session.child.give_up(_STOPPED)
        return session

    def _ended(self, session: _Session) -> None:
        """A process is no more: fail what waits for it, and settle when the next one may start."""
        child = session.child
        session.fail()
        self._last_ending = child.ending
        self._stopping = asyncio.create_task(child.stop())
        if self._closed:
            return
        logger.warning("server %s: %s", self.slug, child.ending)
        if session.probing:
            return
        now = asyncio.get_running_loop().time()
        soon = session.era is None or now - session.began < STEADY_S
        self._deaths = self._deaths + 1 if soon else 0
        if soon:
            self._not_before = now + min(self._min_backoff * 2 ** min(self._deaths - 1, 16), MAX_BACKOFF_S)

    # -- the era

    async def _shake_hands(self, session: _Session) -> _Session:
        try:
            async with asyncio.timeout(self._handshake_timeout):
                session.era = await self._negotiate(session)
        except TimeoutError as error:
            why = f"did not finish its handshake within {self._handshake_timeout:g} s"
            session.child.give_up(why)
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, why) from error
        except UpstreamError as error:
            session.child.give_up(str(error))
            raise
        self.era = session.era
        return session

    async def _negotiate(self, session: _Session) -> Era:
        """Probe for the modern era, then `initialize`; whatever proves an era first is the verdict.

        A process that is slow to start is asked for both, and answers the probe first: that still counts.
        """
        asked = []
        if session.probing:
            probe = await session.send(next(self._ids), "server/discover", outbound.params(Era.MODERN, {}, {}))
            await asyncio.wait([probe.answer], timeout=self._probe_timeout)
            is_modern = probe.answer.done() and _is_modern(probe)
            session.probing = False
            if is_modern:
                return Era.MODERN
            asked.append(probe)
        opening = await session.send(next(self._ids), "initialize", outbound.INITIALIZE_PARAMS)
        asked.append(opening)
        while not opening.answer.done():
            await asyncio.wait([p.answer for p in asked if not p.answer.done()], return_when=asyncio.FIRST_COMPLETED)
            if asked[0] is not opening and asked[0].answer.done() and _is_modern(asked[0]):
                return Era.MODERN
        reply = await opening.reply(None)
        if not reply.is_result:
            raise UpstreamError(
                _PROTOCOL_ERROR,
                "answered neither server/discover nor initialize with a result: is this the command of an MCP server?",
                response=bytes(reply.error) if reply.error is not UNSET else None,
            )
        session.child.write(jsonrpc.notification("notifications/initialized"))
        return Era.LEGACY


def _is_utf8(line: bytes) -> bool:
    """What stays undecoded is not looked at by the decoder."""
    try:
        return line.isascii() or bool(line.decode())
    except UnicodeDecodeError:
        return False


def _is_modern(probe: _Pending) -> bool:
    """Whether the answer to `server/discover` names a modern revision; every other answer says legacy."""
    answer = probe.answer.result()
    if isinstance(answer, UpstreamError):
        raise answer
    versions = outbound.supported_versions(answer.result) if answer.result is not UNSET else []
    return bool(set(versions) & set(MODERN_PROTOCOL_VERSIONS))
