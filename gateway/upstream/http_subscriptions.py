"""The changes of one server over HTTP, as long as somebody listens: its streams opened, kept open, and opened again.

A modern server has one stream for all that is wanted of it; a legacy one says changes on its sessions' streams, and
of a resource's only to the session that has subscribed to it: the gateway's own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from msgspec import UNSET

from gateway.calls import ErrorType
from gateway.mcp import subscriptions
from gateway.mcp.subscriptions import NOTHING, Filter
from gateway.upstream.base import Changed, UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier, refused, wanted_of
from gateway.upstream.http_session import HttpSession, LegacyHttpSession
from gateway.upstream.http_transport import HttpTransport
from gateway.upstream.session_stream import SessionStreams
from gateway.upstream.subscription_stream import ListenStream

logger = logging.getLogger(__name__)

MIN_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
STEADY_S: Final = 5.0
"""A stream that ended sooner is not opened again at once."""

Own = Callable[[], Awaitable[HttpSession]]
"""Gives the gateway's own session, negotiated if it has to be."""
Send = Callable[[HttpSession, UpstreamRequest], Awaitable[UpstreamResponse]]


class HttpSubscriptions:
    """What is open for the listeners of one server."""

    def __init__(
        self, transport: HttpTransport, listeners: ChangeNotifier, hearing: SessionStreams, *, own: Own, send: Send
    ) -> None:
        self._transport = transport
        self._listeners = listeners
        self._hearing = hearing
        self._own = own
        self._send = send
        self._uris: frozenset[str] = frozenset()
        self._refused: dict[str, UpstreamError] = {}
        """Which of them the server does not follow, and why."""
        self._stream: ListenStream | None = None
        self._session: LegacyHttpSession | None = None
        self._lock = asyncio.Lock()
        self._subscribing = asyncio.Lock()
        self._broken = asyncio.Event()
        self._missed = False
        """Whether there was a time since it was open last in which changes were not heard."""
        self._keeping: asyncio.Task[None] | None = None
        hearing.reopened = self._reopened

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Hear of changes until the function that is given back is called."""
        remove = self._listeners.add(changed)
        if self._keeping is None:
            self._keeping = asyncio.create_task(self._keep())

        def stop() -> None:
            remove()
            if not self._listeners:
                self._stop()

        return stop

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        """Have just these resources followed, and the stream open on which they are told; see `Upstream.subscribe`.

        Raises:
            UpstreamError: the server cannot be reached, or refuses all.
        """
        async with self._subscribing:
            before = self._uris, self._refused
            self._uris = uris
            self._refused = {uri: why for uri, why in self._refused.items() if uri in uris}
            if self._listeners or self._session is not None:
                try:
                    await self._open()
                except UpstreamError as error:
                    if error.error_type is ErrorType.JSONRPC_ERROR:
                        self._uris, self._refused = before  # what is refused now is refused later
                    raise
            return dict(self._refused)

    def lost(self, session: LegacyHttpSession) -> None:
        """A session of the server's is gone, and with it what it had subscribed to."""
        if session is self._session:
            self._session = None
            self._missed = True
            self._broken.set()

    async def close(self) -> None:
        """Listen no more."""
        keeping = self._keeping
        self._listeners.close()
        self._stop()
        if keeping is not None:
            await asyncio.gather(keeping, return_exceptions=True)

    def _stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        self._hearing.stop_listening()

    # -- kept open

    async def _keep(self) -> None:
        """Open what is to be open, and again when it breaks; after a time without it, everything may have changed."""
        pause = 0.0
        loop = asyncio.get_running_loop()
        while True:
            self._broken.clear()
            began, failed = loop.time(), False
            try:
                await self._open()
            except UpstreamError as error:
                logger.info("upstream %s: its changes cannot be heard: %s", self._transport.slug, error)
                failed = True
            else:
                await self._broken.wait()
            short = failed or loop.time() - began < STEADY_S
            if short and pause:
                await asyncio.sleep(pause)
            pause = min(max(pause * 2, MIN_PAUSE_S), MAX_PAUSE_S) if short else 0.0

    def _tell_all(self) -> None:
        session = self._stream.session if self._stream is not None else self._session
        if session is not None:
            self._listeners.tell_all(session.declared, self._uris)

    async def _open(self) -> None:
        async with self._lock:
            try:
                session = await self._own()
                if isinstance(session, LegacyHttpSession):
                    self._close_stream()
                    await self._open_legacy(session)
                else:
                    self._session = None
                    await self._open_modern(session)
            except UpstreamError:
                self._missed = self._missed or (self._stream is None and self._session is None)
                raise
            if self._missed:
                self._missed = False
                self._tell_all()

    # -- a modern server

    async def _open_modern(self, session: HttpSession) -> None:
        """The new stream is open before the old one is closed, so that no change falls between them."""
        wanted = wanted_of(session.declared, self._uris)
        stream = self._stream
        if wanted.is_empty or not self._listeners:
            self._close_stream()
            return
        if stream is not None and not stream.ended.done() and (stream.session, stream.wanted) == (session, wanted):
            return
        opened = await self._opened(session, wanted)
        self._close_stream()
        if not self._listeners:
            opened.close()
            return
        self._stream = opened
        opened.ended.add_done_callback(lambda _: self._ended(opened))

    async def _opened(self, session: HttpSession, wanted: Filter) -> ListenStream:
        """The stream, and what the server does not follow; if it refuses all for that, its lists are heard still."""
        try:
            opened = await ListenStream.open(self._transport, session, wanted, self._listeners)
        except UpstreamError as error:
            lists = subscriptions.without(wanted, self._uris)
            if (
                self._stream is not None
                or lists in (wanted, NOTHING)
                or error.error_type is not ErrorType.JSONRPC_ERROR
            ):
                raise
            opened = await ListenStream.open(self._transport, session, lists, self._listeners)
            opened.wanted = wanted
            self._refused = dict.fromkeys(self._uris, error)
            return opened
        kept = opened.kept.resource_subscriptions or ()
        left_out = UpstreamError(ErrorType.JSONRPC_ERROR, "does not follow the resource")
        self._refused = {uri: left_out for uri in self._uris if uri not in kept}
        return opened

    def _ended(self, stream: ListenStream) -> None:
        if stream is self._stream:
            self._stream = None
            self._missed = True
            self._broken.set()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    # -- a legacy server

    def _reopened(self, session: LegacyHttpSession) -> None:
        """A session's stream was away for a time: what the server said meanwhile, nobody has heard."""
        uris = self._uris if session is self._session else ()
        self._listeners.tell_all(session.declared, uris)

    async def _open_legacy(self, session: LegacyHttpSession) -> None:
        if session is not self._session:
            self._refused = {}  # by another session
        self._session = session
        await self._hearing.hear(session)
        for uri in sorted(session.subscribed - self._uris):
            await self._send(session, UpstreamRequest("resources/unsubscribe", {"uri": uri}, repeatable=True))
            session.subscribed -= {uri}
        for uri in sorted(self._uris - session.subscribed - self._refused.keys()):
            reply = await self._send(session, UpstreamRequest("resources/subscribe", {"uri": uri}, repeatable=True))
            if reply.error is UNSET:
                session.subscribed |= {uri}
            else:
                self._refused[uri] = refused(uri, reply.error)
