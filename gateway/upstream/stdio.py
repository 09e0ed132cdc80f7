"""MCP over the standard streams of processes that the relay starts, in both eras: which process a request goes to.

The server's settings say whether all tokens share one process or each has its own. A shared process is told that its
client accepts no requests, as it does not say whom they are for; a token's own is told what that client declares.

The first request starts a process, and so does the first one after it has ended. A process that ends soon after its
start is started again only after a pause, which doubles each time; requests during the pause fail at once.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/stdio; versioning, "Era detection".
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from mcp.client.stdio import get_default_environment
from msgspec import Raw

from gateway.backoff import Backoff
from gateway.calls import ErrorType
from gateway.config import StdioServer
from gateway.mcp import jsonrpc, outbound
from gateway.mcp.revisions import Era
from gateway.upstream import discovery
from gateway.upstream.base import OnChange, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamTimings
from gateway.upstream.server_subscriptions import ChangeNotifier, ServerSubscriptions
from gateway.upstream.session_pool import GATEWAY_KEY, SessionKey, SessionPool
from gateway.upstream.stdio_session import PendingRequest, StdioSession
from gateway.upstream.subprocess import SpawnError, Subprocess

logger = logging.getLogger(__name__)

MAX_PROCESSES: Final = 64
"""Of one server, one for each token."""
_UNREACHABLE: Final = ErrorType.UPSTREAM_UNREACHABLE
_STOPPED: Final = "the gateway has stopped its process"


class RestartingProcess:
    """One process of a server, and its successors. `started` is called when one runs and its era is known."""

    def __init__(
        self,
        slug: str,
        server: StdioServer,
        notifier: ChangeNotifier,
        started: Callable[["RestartingProcess", StdioSession], None],
        *,
        timings: UpstreamTimings,
        client_capabilities: Raw,
    ) -> None:
        self._slug = slug
        self._server = server
        self._notifier = notifier
        self._started = started
        self._timings = timings
        self._initialize_params = {**outbound.INITIALIZE_PARAMS, "capabilities": client_capabilities}
        self._session: StdioSession | None = None
        self._starting: asyncio.Task[StdioSession] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._probes = True
        """Whether the next start begins with `server/discover`."""
        self._backoff = Backoff(timings.restart_s, timings.restart_longest_s)
        self._not_before = 0.0
        self._last_ending = ""
        self._closed = False

    @property
    def session(self) -> StdioSession | None:
        """The session, if the process runs and its era is known."""
        session = self._session
        return session if session is not None and session.is_ready and not session.process.lost else None

    @property
    def is_idle(self) -> bool:
        return self._starting is None and (self._session is None or self._session.is_idle)

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        session = self.session or await self.running()
        request.acquired_ns = time.perf_counter_ns()
        level = session.raise_level(request.log_level)
        if level is not None:  # what is wrong with it, the request itself will show
            await session.send("logging/setLevel", {"level": level})
        return await session.request(request)

    async def close(self) -> None:
        """End the process and what it has started; requests under way end as `upstream_unreachable`."""
        self._closed = True
        if self._session is not None:
            self._session.process.give_up(_STOPPED)
        if self._starting is not None:
            await asyncio.wait([self._starting])
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    # -- the process

    async def running(self) -> StdioSession:
        """The session with a process that runs; one task starts it, however many wait.

        Raises:
            UpstreamError: it cannot be started, or does not speak MCP.
        """
        if self.session is not None:
            return self.session
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._start_ended)
        starting = self._starting
        await asyncio.wait([starting])  # a waiter that is cancelled leaves it running
        return starting.result()

    def _start_ended(self, task: asyncio.Task[StdioSession]) -> None:
        self._starting = None
        if not task.cancelled():
            task.exception()  # mark it as retrieved: every waiter may have been cancelled

    async def _start(self) -> StdioSession:
        """Start a process and find out its era.

        Servers on some SDKs end when their first request is not `initialize`: these are started again without a probe.
        """
        await self._previous_ended()
        pause = self._not_before - asyncio.get_running_loop().time()
        if pause > 0:
            raise UpstreamError(
                _UNREACHABLE, f"{self._last_ending}; it is started again by a request in {pause:.1f} s or later"
            )
        if self._probes:
            session = await self._spawn(probing=True)
            try:
                return await self._shake_hands(session)
            except UpstreamError:
                if not session.probing or self._closed:
                    raise
            await self._previous_ended()
        self._probes = True
        session = await self._shake_hands(await self._spawn(probing=False))
        self._probes = False
        return session

    async def _previous_ended(self) -> None:
        """Wait until the previous process is gone: two might fight for a file that a server locks."""
        if self._session is not None:
            await self._session.process.until_ended()
        if self._stopping is not None:
            await asyncio.wait([self._stopping])

    async def _spawn(self, *, probing: bool) -> StdioSession:
        session = StdioSession(self._slug, self._notifier, probing=probing)
        session.process = Subprocess(
            self._slug, session.receive, functools.partial(self._ended, session), self._timings.close_s
        )
        server = self._server
        try:
            await session.process.start(
                (server.command, *server.args), {**get_default_environment(), **server.env}, server.cwd
            )
        except SpawnError as error:
            raise UpstreamError(_UNREACHABLE, str(error)) from error
        self._session = session
        if self._closed:
            session.process.give_up(_STOPPED)
        return session

    def _ended(self, session: StdioSession) -> None:
        """A process has ended: fail what waits for it, and settle when the next one may start."""
        process = session.process
        session.fail()
        self._last_ending = process.ending
        self._stopping = asyncio.create_task(process.stop())
        if self._closed:
            return
        logger.warning("server %s: %s", self._slug, process.ending)
        if session.probing:
            return
        now = asyncio.get_running_loop().time()
        if session.is_ready and now - session.began >= self._timings.stable_process_s:
            self._backoff.reset()
        else:
            self._not_before = now + self._backoff.failed()

    # -- the era

    async def _shake_hands(self, session: StdioSession) -> StdioSession:
        seconds = self._timings.process_handshake_s
        try:
            async with asyncio.timeout(seconds):
                reply = await self._negotiate(session)
        except TimeoutError as error:
            reason = f"did not finish its handshake within {seconds:g} s"
            session.process.give_up(reason)
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, reason) from error
        except UpstreamError as error:
            session.process.give_up(str(error))
            raise
        session.declared = discovery.declared_in(reply)
        session.is_ready = True
        self._started(self, session)
        return session

    async def _negotiate(self, session: StdioSession) -> UpstreamResponse:
        """The result of `server/discover` or `initialize`, and the session's era by it.

        A process that is slow to start gets both requests. Whichever proves an era first decides; `server/discover`
        comes first, so that a slow modern server is not taken for a legacy one.
        """
        probe: PendingRequest | None = None
        if session.probing:
            probe = await session.send("server/discover", outbound.params(Era.MODERN, {}, {}))
            await asyncio.wait([probe.response], timeout=self._timings.probe_s)
            is_modern = _is_modern(probe)
            session.probing = False
            if is_modern:
                session.era = Era.MODERN
                return await probe.until_response()
        opening = await session.send("initialize", self._initialize_params)
        waiting = {opening.response} if probe is None else {opening.response, probe.response}
        while not opening.response.done():
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if probe is not None and _is_modern(probe):
                session.era = Era.MODERN
                return await probe.until_response()
        reply = await opening.until_response()
        if not reply.is_result:
            raise discovery.not_a_server(reply, "command")
        session.process.write(jsonrpc.notification("notifications/initialized"))
        return reply


def _is_modern(probe: PendingRequest) -> bool:
    """Whether the response to `server/discover` has come and names a modern version."""
    if not probe.response.done():
        return False
    response = probe.response.result()
    if isinstance(response, UpstreamError):
        raise response
    return discovery.names_modern_version(response)


class StdioUpstream:
    """An upstream that is a command. `era` and `declared` are those of the process that started last."""

    def __init__(
        self,
        slug: str,
        server: StdioServer,
        timings: UpstreamTimings,
        *,
        max_processes: int = MAX_PROCESSES,
    ) -> None:
        self.slug = slug
        self.address: str | None = None
        self.era: Era | None = None
        self.declared: Raw | None = None
        self._server = server
        self._timings = timings
        self._has_process_per_token = server.isolation == "token"
        self._notifier = ChangeNotifier(timings.quiet_s)
        self._subscriptions = ServerSubscriptions[StdioSession](slug, self, self._notifier, timings)
        self._own = self._process(GATEWAY_KEY)
        self._max_processes = max_processes
        self._processes = SessionPool(self._end, max_size=max_processes, idle_s=timings.idle_s)
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        process = self._own
        if self._has_process_per_token:
            process = self._process_of(SessionKey(request.token_id, bytes(request.client_capabilities)))
        return await process.request(request)

    def listen(self, changed: OnChange) -> None:
        self._subscriptions.listen(changed)

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        return await self._subscriptions.subscribe(uris)

    async def close(self) -> None:
        """End the processes and what they have started; requests under way end as `upstream_unreachable`."""
        self._closed = True
        await self._subscriptions.close()
        processes = [self._own, *self._processes.clear()]
        await asyncio.gather(*(process.close() for process in processes), *self._ending)

    # -- for ServerSubscriptions

    async def subscription_session(self, *, start: bool) -> StdioSession | None:
        return await self._own.running() if start else self._own.session

    async def send_in(self, session: StdioSession, request: UpstreamRequest) -> UpstreamResponse:
        return await session.request(request)

    # -- processes

    def _process(self, key: SessionKey) -> RestartingProcess:
        return RestartingProcess(
            self.slug,
            self._server,
            self._notifier,
            self._started,
            timings=self._timings,
            client_capabilities=Raw(key.client_capabilities),
        )

    def _started(self, process: RestartingProcess, session: StdioSession) -> None:
        self.era, self.declared = session.era, session.declared
        if process is self._own:
            self._subscriptions.session_started()

    def _process_of(self, key: SessionKey) -> RestartingProcess:
        """The process of a token, which counts as used now.

        Raises:
            UpstreamError: there are as many as there may be, and all of them are busy.
        """
        if key == GATEWAY_KEY:
            return self._own
        process = self._processes.get(key)
        if process is None:
            if self._closed:
                raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, "is not served any more")
            if not self._processes.make_room():
                reason = f"runs {self._max_processes} processes, one for each token, and all are busy"
                raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, reason)
            process = self._process(key)
            self._processes.put(key, process)
        return process

    def _end(self, process: RestartingProcess) -> None:
        task = asyncio.create_task(process.close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
