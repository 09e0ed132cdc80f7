"""MCP over the standard streams of processes that the relay starts, in both eras: which process a request goes to.

The server's settings say whether all tokens share one process or each has its own. A shared process is told that its
client accepts no requests, as it does not say whom they are for; a token's own is told what that client declares.
"""

import asyncio
import itertools
from collections.abc import Mapping
from typing import Final

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.config import StdioServer
from gateway.mcp.revisions import Era
from gateway.upstream.base import (
    DEFAULT_TIMINGS,
    OnChange,
    UpstreamError,
    UpstreamRequest,
    UpstreamResponse,
    UpstreamTimings,
)
from gateway.upstream.server_subscriptions import ChangeNotifier, ServerSubscriptions
from gateway.upstream.session_pool import GATEWAY_KEY, SessionKey, SessionPool
from gateway.upstream.stdio_process import RestartingProcess
from gateway.upstream.stdio_session import StdioSession

MAX_PROCESSES: Final = 64
"""Of one server, one for each token."""


class StdioUpstream:
    """An upstream that is a command. `era` and `declared` are those of the process that started last."""

    def __init__(
        self,
        slug: str,
        server: StdioServer,
        timings: UpstreamTimings = DEFAULT_TIMINGS,
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
        self._ids = itertools.count(1)
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
        return await session.request(next(self._ids), request)

    # -- processes

    def _process(self, key: SessionKey) -> RestartingProcess:
        return RestartingProcess(
            self.slug,
            self._server,
            self._ids,
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
