"""A server's process: started by the first request, and again by the first after it ended.

A process that ends soon after its start is started again after a pause only, which doubles each time; requests within
it fail at once. Source: specification 2026-07-28 and 2025-11-25, basic/transports/stdio; versioning, "Era detection".
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from mcp.client.stdio import get_default_environment
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.config import StdioServer
from gateway.mcp import jsonrpc, outbound
from gateway.mcp.revisions import Era
from gateway.upstream import request_meta
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.http_session import declared_in
from gateway.upstream.stdio_session import TOKEN, PendingRequest, StdioSession
from gateway.upstream.subprocess import SpawnError, Subprocess
from gateway.upstream.supported_versions import common_versions

logger = logging.getLogger(__name__)

STEADY_S: Final = 10.0
"""A process that lived shorter than this is not started again at once."""
MAX_BACKOFF_S: Final = 30.0
_PROTOCOL_ERROR: Final = ErrorType.UPSTREAM_PROTOCOL_ERROR
_UNREACHABLE: Final = ErrorType.UPSTREAM_UNREACHABLE
_STOPPED: Final = "the gateway has stopped its process"


class Patience(NamedTuple):
    """How long a process may take, in seconds."""

    probe: float = 10.0
    """To answer `server/discover` before it is also asked to `initialize`."""
    handshake: float = 60.0
    """From the start to the era; a package runner may have to download the server first."""
    backoff: float = 0.5
    """The first pause before a process that ended soon is started again."""


Ready = Callable[["RestartingProcess", StdioSession], None]
"""Hears that a process is started and what it speaks."""


class RestartingProcess:
    """One process of a server, and its successors; `askable` is what its clients can be asked."""

    def __init__(
        self,
        slug: str,
        server: StdioServer,
        ids: Iterator[int],
        listeners: ChangeNotifier,
        ready: Ready,
        *,
        patience: Patience,
        askable: Raw = jsonrpc.EMPTY_OBJECT,
    ) -> None:
        self._slug = slug
        self._command = (server.command, *server.args)
        self._environment = {**get_default_environment(), **server.env}
        self._cwd: Path | None = server.cwd
        self._ids = ids
        self._listeners = listeners
        self._ready = ready
        self._patience = patience
        self._initialize = {**outbound.INITIALIZE_PARAMS, "capabilities": askable}
        self._session: StdioSession | None = None
        self._starting: asyncio.Task[StdioSession] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._probes = True
        self._deaths = 0
        """In a row, each soon after the start."""
        self._not_before = 0.0
        self._last_ending = ""
        self._closed = False
        self.used_at = 0.0

    @property
    def session(self) -> StdioSession | None:
        """The session, if the process runs and its era is known."""
        session = self._session
        return session if session is not None and session.era is not None and not session.child.lost else None

    @property
    def idle(self) -> bool:
        """Whether nobody waits for it."""
        return self._starting is None and (self._session is None or self._session.idle)

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for its answer; to be cancelled is to cancel it upstream.

        Raises:
            UpstreamError: see `Upstream.request`.
        """
        session = self.session or await self.running()
        request.acquired_ns = time.perf_counter_ns()
        level = session.raise_level(request_meta.log_level(request))
        if level is not None:  # what is wrong with it, the request itself will show
            setting = next(self._ids)
            await session.send(setting, "logging/setLevel", {"level": level})
        request_id = next(self._ids)
        era = session.era or Era.LEGACY
        meta = request_meta.meta(era, request)
        token = meta.get(TOKEN)
        if token is not None:
            meta = {**meta, TOKEN: jsonrpc.raw(request_id)}
        params = outbound.params(era, request.params, meta, request.traceparent, request.tracestate)
        pending = await session.send(request_id, request.method, params, request, token)
        try:
            await session.child.writable()
            request.sent_ns = time.perf_counter_ns()
            return await pending.reply(request.notify)
        finally:
            session.forget(request_id)
            self.used_at = asyncio.get_running_loop().time()
            request.first_byte_ns, request.done_ns = pending.first_byte_ns, pending.done_ns

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

    async def running(self) -> StdioSession:
        """A session with a process that lives, begun by one task however many wait for it."""
        if self.session is not None:
            return self.session
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        starting = self._starting
        await asyncio.wait([starting])  # a waiter that is cancelled leaves it running
        return starting.result()

    def _started(self, task: asyncio.Task[StdioSession]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # perhaps nobody waits any more

    async def _start(self) -> StdioSession:
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

    async def _spawn(self, *, probing: bool) -> StdioSession:
        session = StdioSession(self._slug, self._listeners, probing=probing)
        session.child = Subprocess(self._slug, session.receive, functools.partial(self._ended, session))
        try:
            await session.child.start(self._command, self._environment, self._cwd)
        except SpawnError as error:
            raise UpstreamError(_UNREACHABLE, str(error)) from error
        self._session = session
        if self._closed:
            session.child.give_up(_STOPPED)
        return session

    def _ended(self, session: StdioSession) -> None:
        """A process is no more: fail what waits for it, and settle when the next one may start."""
        child = session.child
        session.fail()
        self._last_ending = child.ending
        self._stopping = asyncio.create_task(child.stop())
        if self._closed:
            return
        logger.warning("server %s: %s", self._slug, child.ending)
        if session.probing:
            return
        now = asyncio.get_running_loop().time()
        soon = session.era is None or now - session.began < STEADY_S
        self._deaths = self._deaths + 1 if soon else 0
        if soon:
            self._not_before = now + min(self._patience.backoff * 2 ** min(self._deaths - 1, 16), MAX_BACKOFF_S)

    # -- the era

    async def _shake_hands(self, session: StdioSession) -> StdioSession:
        try:
            async with asyncio.timeout(self._patience.handshake):
                session.era = await self._negotiate(session)
        except TimeoutError as error:
            why = f"did not finish its handshake within {self._patience.handshake:g} s"
            session.child.give_up(why)
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, why) from error
        except UpstreamError as error:
            session.child.give_up(str(error))
            raise
        self._ready(self, session)
        return session

    async def _negotiate(self, session: StdioSession) -> Era:
        """Probe for the modern era, then `initialize`; whatever proves an era first is the verdict.

        A process that is slow to start is asked for both, and answers the probe first: that still counts.
        """
        asked = []
        if session.probing:
            probe = await session.send(next(self._ids), "server/discover", outbound.params(Era.MODERN, {}, {}))
            await asyncio.wait([probe.answer], timeout=self._patience.probe)
            is_modern = probe.answer.done() and _is_modern(probe)
            session.probing = False
            if is_modern:
                return self._modern(session, probe)
            asked.append(probe)
        opening = await session.send(next(self._ids), "initialize", self._initialize)
        asked.append(opening)
        while not opening.answer.done():
            await asyncio.wait([p.answer for p in asked if not p.answer.done()], return_when=asyncio.FIRST_COMPLETED)
            if asked[0] is not opening and asked[0].answer.done() and _is_modern(asked[0]):
                return self._modern(session, asked[0])
        reply = await opening.reply(None)
        if not reply.is_result:
            raise UpstreamError(
                _PROTOCOL_ERROR,
                "answered neither server/discover nor initialize with a result: is this the command of an MCP server?",
                response=bytes(reply.error) if reply.error is not UNSET else None,
            )
        session.declared = declared_in(reply.result) if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT
        session.child.write(jsonrpc.notification("notifications/initialized"))
        return Era.LEGACY

    @staticmethod
    def _modern(session: StdioSession, probe: PendingRequest) -> Era:
        answer = probe.answer.result()
        discovered = answer.result if isinstance(answer, UpstreamResponse) else UNSET
        session.declared = declared_in(discovered) if discovered is not UNSET else jsonrpc.EMPTY_OBJECT
        return Era.MODERN


def _is_modern(probe: PendingRequest) -> bool:
    """Whether the answer to `server/discover` names a modern revision; every other answer says legacy."""
    answer = probe.answer.result()
    if isinstance(answer, UpstreamError):
        raise answer
    return bool(set(common_versions(answer)) & set(MODERN_PROTOCOL_VERSIONS))
