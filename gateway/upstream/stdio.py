"""MCP over the standard streams of processes that the relay starts, both eras: whose process a request goes to.

Shared by all, or one for each token, as the server's settings say. A shared process is told of no client that can be
asked, as it does not say whom it asks; a token's is told what that token's client can be asked.
"""

import asyncio
import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.config import StdioServer
from gateway.mcp.revisions import Era
from gateway.upstream import request_meta
from gateway.upstream.base import Changed, UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.stdio_process import Patience, RestartingProcess
from gateway.upstream.stdio_session import StdioSession
from gateway.upstream.stdio_subscriptions import StdioSubscriptions

MAX_PROCESSES: Final = 64
"""Of one server, one for each token; then the one that was used least recently makes room."""
IDLE_S: Final = 600.0
"""A token's process that nobody has used for so long is ended."""
_PATIENCE: Final = Patience()


class SessionKey(NamedTuple):
    """Whose a process is."""

    token_id: str | None
    askable: bytes


OWN_KEY: Final = SessionKey(None, b"{}")


class StdioUpstream:
    """An upstream that is a command. `era` and `declared` are the last process's."""

    def __init__(
        self,
        slug: str,
        server: StdioServer,
        *,
        probe_timeout: float = _PATIENCE.probe,
        handshake_timeout: float = _PATIENCE.handshake,
        min_backoff: float = _PATIENCE.backoff,
    ) -> None:
        self.slug = slug
        self.address: str | None = None
        self.era: Era | None = None
        self.declared: Raw | None = None
        self._server = server
        self._patience = Patience(probe_timeout, handshake_timeout, min_backoff)
        self._by_token = server.isolation == "token"
        self._ids = itertools.count(1)
        self._listeners = ChangeNotifier()
        self._own = self._process(OWN_KEY)
        self._others: OrderedDict[SessionKey, RestartingProcess] = OrderedDict()
        self._listening = StdioSubscriptions(slug, self._own, self._ids, self._listeners)
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for its answer; to be cancelled is to cancel it upstream.

        Raises:
            UpstreamError: see `Upstream.request`.
        """
        process = self._own
        if self._by_token:
            process = self._process_of(SessionKey(request.token_id, bytes(request_meta.askable(request.client))))
        return await process.request(request)

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Hear of changes; see `Upstream.listen`."""
        return self._listening.listen(changed)

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        """Ask for updates of just these resources; see `Upstream.subscribe`.

        Raises:
            UpstreamError: the process cannot be started, or refuses.
        """
        return await self._listening.subscribe(uris)

    async def close(self) -> None:
        """End the processes and what they started; requests under way end as `upstream_unreachable`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._listening.close()
        processes = [self._own, *self._others.values()]
        await asyncio.gather(*(process.close() for process in processes), *self._ending)

    # -- processes

    def _process(self, key: SessionKey) -> RestartingProcess:
        return RestartingProcess(
            self.slug,
            self._server,
            self._ids,
            self._listeners,
            self._ready,
            patience=self._patience,
            askable=Raw(key.askable),
        )

    def _ready(self, process: RestartingProcess, session: StdioSession) -> None:
        self.era, self.declared = session.era, session.declared
        if process is self._own:
            self._listening.ready()

    def _process_of(self, key: SessionKey) -> RestartingProcess:
        """A token's process, which is in use from now on.

        Raises:
            UpstreamError: there are as many as there may be, and all of them are busy.
        """
        if key == OWN_KEY:
            return self._own
        loop = asyncio.get_running_loop()
        process = self._others.get(key)
        if process is None:
            if self._closed:
                raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, "is not served any more")
            self._make_room()
            process = self._others[key] = self._process(key)
            if self._timer is None:
                self._timer = loop.call_later(IDLE_S / 4, self._sweep)
        self._others.move_to_end(key)
        process.used_at = loop.time()
        return process

    def _make_room(self) -> None:
        if len(self._others) < MAX_PROCESSES:
            return
        for key, process in self._others.items():
            if process.idle:
                self._end(key)
                return
        raise UpstreamError(
            ErrorType.UPSTREAM_UNREACHABLE, f"runs {MAX_PROCESSES} processes, one for each token, and all are busy"
        )

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() - IDLE_S
        for key, process in list(self._others.items()):
            if process.idle and process.used_at <= since:
                self._end(key)
        self._timer = loop.call_later(IDLE_S / 4, self._sweep) if self._others else None

    def _end(self, key: SessionKey) -> None:
        task = asyncio.create_task(self._others.pop(key).close())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
