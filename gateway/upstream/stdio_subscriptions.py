"""The changes of a server over stdio: a legacy one says them unasked, a modern one to `subscriptions/listen`.

A process is not started for a listener, only for the resources that it wants followed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from msgspec import UNSET

from gateway.calls import ErrorType
from gateway.mcp import outbound, subscriptions
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import NOTHING, Filter
from gateway.upstream.base import Changed, UpstreamError, UpstreamRequest
from gateway.upstream.change_listeners import ChangeNotifier, refused, wanted_of
from gateway.upstream.stdio_process import RestartingProcess
from gateway.upstream.stdio_session import StdioSession

logger = logging.getLogger(__name__)

ACKNOWLEDGE_S: Final = 10.0
MIN_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
STEADY_S: Final = 5.0
"""A subscription that ended sooner is not made again at once."""


class _Subscription(NamedTuple):
    """One `subscriptions/listen` that stands."""

    request_id: int
    wanted: Filter
    began: float


class StdioSubscriptions:
    """What the listeners of one server want of the gateway's own process."""

    def __init__(self, slug: str, process: RestartingProcess, ids: Iterator[int], listeners: ChangeNotifier) -> None:
        self._slug = slug
        self._process = process
        self._ids = ids
        self._listeners = listeners
        self._uris: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._subscribing = asyncio.Lock()
        self._session: StdioSession | None = None
        self._refused: dict[str, UpstreamError] = {}
        """Which of the resources the process does not follow, and why."""
        self._subscription: _Subscription | None = None
        self._opening: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._pause = 0.0
        self._changed = False
        """Whether what is wanted has changed since it was last looked at."""
        self._missed = False
        """Whether there was a time since it was heard last in which changes were not heard."""
        self._starts = 0

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Hear of changes until the function that is given back is called."""
        remove = self._listeners.add(changed)
        if self._process.session is not None:
            self._open_soon()

        def stop() -> None:
            remove()
            if not self._listeners and self._process.session is not None:
                self._open_soon()

        return stop

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        """Have just these resources followed; see `Upstream.subscribe`.

        Raises:
            UpstreamError: the process cannot be started, or refuses all.
        """
        async with self._subscribing:
            before = self._uris, self._refused
            self._uris = uris
            self._refused = {uri: why for uri, why in self._refused.items() if uri in uris}
            if not uris and self._process.session is None:
                return {}
            try:
                await self._process.running()
                await self._open()
            except UpstreamError as error:
                if error.error_type is ErrorType.JSONRPC_ERROR:
                    self._uris, self._refused = before
                raise
            return dict(self._refused)

    def ready(self) -> None:
        """A process runs, for the first time or again: it knows of no subscription."""
        self._starts += 1
        self._missed = self._starts > 1
        if self._listeners or self._uris:
            self._open_soon()

    async def close(self) -> None:
        """Listen no more."""
        self._listeners.close()
        if self._again is not None:
            self._again.cancel()
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)

    # -- subscriptions

    def _open_soon(self) -> None:
        self._changed = True
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._try())

    async def _try(self) -> None:
        while self._changed:
            self._changed = False
            try:
                await self._open()
            except UpstreamError as error:
                logger.info("server %s: its changes cannot be heard: %s", self._slug, error)

    async def _open(self) -> None:
        async with self._lock:
            session = self._process.session
            if session is None:
                return
            if session is not self._session:
                self._session, self._subscription, self._refused = session, None, {}
            if session.era is Era.MODERN:
                await self._open_modern(session)
            else:
                await self._open_legacy(session)
            if self._missed:
                self._missed = False
                self._listeners.tell_all(session.declared, self._uris)

    async def _open_modern(self, session: StdioSession) -> None:
        """The new subscription is acknowledged before the old one ends, so that no change falls between them."""
        wanted = wanted_of(session.declared, self._uris) if self._listeners else NOTHING
        before = self._subscription
        if (before is None and wanted.is_empty) or (before is not None and before.wanted == wanted):
            return
        self._subscription = await self._opened(session, wanted) if not wanted.is_empty else None
        if before is not None:
            session.forget(before.request_id)

    async def _opened(self, session: StdioSession, wanted: Filter) -> _Subscription:
        """The subscription; if the process refuses all of it for its resources, its lists are heard still."""
        began = asyncio.get_running_loop().time()
        try:
            request_id, kept = await self._subscribed(session, wanted)
        except UpstreamError as error:
            lists = subscriptions.without(wanted, self._uris)
            refused_all = error.error_type is ErrorType.JSONRPC_ERROR
            if self._subscription is not None or lists in (wanted, NOTHING) or not refused_all:
                raise
            request_id, _ = await self._subscribed(session, lists)
            self._refused = dict.fromkeys(self._uris, error)
        else:
            left_out = UpstreamError(ErrorType.JSONRPC_ERROR, "does not follow the resource")
            followed = kept.resource_subscriptions or ()
            self._refused = {uri: left_out for uri in self._uris if uri not in followed}
        return _Subscription(request_id, wanted, began)

    async def _subscribed(self, session: StdioSession, wanted: Filter) -> tuple[int, Filter]:
        request_id = next(self._ids)
        done = session.acknowledgement(request_id)
        params = outbound.params(Era.MODERN, subscriptions.listen_params(wanted), {})
        pending = await session.send(request_id, subscriptions.METHOD, params)
        waited: list[asyncio.Future[Any]] = [done, pending.answer]
        await asyncio.wait(waited, timeout=ACKNOWLEDGE_S, return_when=asyncio.FIRST_COMPLETED)
        if done.done() and not done.cancelled():
            pending.answer.add_done_callback(lambda _: self._ended(session, request_id))
            return request_id, done.result()
        done.cancel()
        if not pending.answer.done():
            session.forget(request_id)
            why = f"did not acknowledge subscriptions/listen within {ACKNOWLEDGE_S:g} s"
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, why)
        reply = await pending.reply(None)
        said = bytes(reply.error) if reply.error is not UNSET else None
        why = said[:200].decode("utf-8", "replace") if said is not None else "with a result"
        raise UpstreamError(ErrorType.JSONRPC_ERROR, f"refused subscriptions/listen: {why}", response=said)

    def _ended(self, session: StdioSession, request_id: int) -> None:
        """The process has ended the subscription: make it again, unless it has ended itself."""
        subscription = self._subscription
        if subscription is None or subscription.request_id != request_id or session is not self._process.session:
            return
        self._subscription, self._missed = None, True
        loop = asyncio.get_running_loop()
        short = loop.time() - subscription.began < STEADY_S
        self._again = loop.call_later(self._pause, self._open_soon)
        self._pause = min(max(self._pause * 2, MIN_PAUSE_S), MAX_PAUSE_S) if short else 0.0

    async def _open_legacy(self, session: StdioSession) -> None:
        for uri in sorted(session.subscribed - self._uris):
            await self._process.request(UpstreamRequest("resources/unsubscribe", {"uri": uri}))
            session.subscribed -= {uri}
        for uri in sorted(self._uris - session.subscribed - self._refused.keys()):
            reply = await self._process.request(UpstreamRequest("resources/subscribe", {"uri": uri}))
            if reply.error is UNSET:
                session.subscribed |= {uri}
            else:
                self._refused[uri] = refused(uri, reply.error)
