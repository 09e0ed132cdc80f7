"""The changes of a server over stdio: a legacy one says them unasked, a modern one to `subscriptions/listen`.

A process is not started for a listener, only for the resources that it wants followed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec import UNSET

from gateway.calls import ErrorType
from gateway.mcp import outbound, subscriptions
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import Filter
from gateway.relay.upstream.changes import Listeners, wanted_of
from gateway.relay.upstream.seam import Changed, Exchange, UpstreamError
from gateway.relay.upstream.stdio_process import Process
from gateway.relay.upstream.stdio_session import StdioSession

logger = logging.getLogger(__name__)

ACKNOWLEDGE_S: Final = 10.0


class StdioListening:
    """What the listeners of one server want of the gateway's own process."""

    def __init__(self, slug: str, process: Process, ids: Iterator[int], listeners: Listeners) -> None:
        self._slug = slug
        self._process = process
        self._ids = ids
        self._listeners = listeners
        self._uris: frozenset[str] = frozenset()
        self._lock = asyncio.Lock()
        self._session: StdioSession | None = None
        self._subscription: tuple[int, Filter] | None = None
        self._opening: asyncio.Task[None] | None = None
        self._changed = False
        """Whether what is wanted has changed since it was last looked at."""
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

    async def subscribe(self, uris: frozenset[str]) -> None:
        """Have just these resources followed.

        Raises:
            UpstreamError: the process cannot be started, or refuses.
        """
        before, self._uris = self._uris, uris
        if not uris and self._process.session is None:
            return
        try:
            await self._process.running()
            await self._open()
        except UpstreamError as error:
            if error.error_type is ErrorType.JSONRPC_ERROR and self._uris is uris:
                self._uris = before
            raise

    def ready(self) -> None:
        """A process runs, for the first time or again: it knows of no subscription."""
        self._starts += 1
        if self._listeners or self._uris:
            self._open_soon()
            if self._starts > 1 and self._process.session is not None:
                self._listeners.tell_all(self._process.session.declared, self._uris)

    async def close(self) -> None:
        """Listen no more."""
        self._listeners.close()
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
                self._session, self._subscription = session, None
            if session.era is Era.MODERN:
                await self._open_modern(session)
            else:
                await self._open_legacy(session)

    async def _open_modern(self, session: StdioSession) -> None:
        """The new subscription is acknowledged before the old one ends, so that no change falls between them."""
        wanted = wanted_of(session.declared, self._uris) if self._listeners else subscriptions.NOTHING
        before = self._subscription
        if (before is None and wanted.is_empty) or (before is not None and before[1] == wanted):
            return
        self._subscription = await self._subscribed(session, wanted) if not wanted.is_empty else None
        if before is not None:
            session.forget(before[0])

    async def _subscribed(self, session: StdioSession, wanted: Filter) -> tuple[int, Filter]:
        request_id = next(self._ids)
        done = session.acknowledgement(request_id)
        params = outbound.params(Era.MODERN, subscriptions.listen_params(wanted), {})
        pending = await session.send(request_id, subscriptions.METHOD, params)
        waited: list[asyncio.Future[Any]] = [done, pending.answer]
        await asyncio.wait(waited, timeout=ACKNOWLEDGE_S, return_when=asyncio.FIRST_COMPLETED)
        if done.done() and not done.cancelled():
            return request_id, wanted
        done.cancel()
        if not pending.answer.done():
            session.forget(request_id)
            why = f"did not acknowledge subscriptions/listen within {ACKNOWLEDGE_S:g} s"
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, why)
        reply = await pending.reply(None)
        why = bytes(reply.error)[:200].decode("utf-8", "replace") if reply.error is not UNSET else "with a result"
        raise UpstreamError(ErrorType.JSONRPC_ERROR, f"refused subscriptions/listen: {why}")

    async def _open_legacy(self, session: StdioSession) -> None:
        for uri in sorted(session.subscribed - self._uris):
            await self._process.request(Exchange("resources/unsubscribe", {"uri": uri}))
            session.subscribed -= {uri}
        for uri in sorted(self._uris - session.subscribed):
            reply = await self._process.request(Exchange("resources/subscribe", {"uri": uri}))
            if reply.error is not UNSET:
                why = bytes(reply.error)[:200].decode("utf-8", "replace")
                raise UpstreamError(ErrorType.JSONRPC_ERROR, f"refused to subscribe to {uri[:200]!r}: {why}")
            session.subscribed |= {uri}
