"""The changes of one server over HTTP, as long as somebody listens: its streams opened, kept open, and opened again.

A modern server has one stream for all that is wanted of it; a legacy one says changes on its sessions' streams, and
of a resource's only to the session that has subscribed to it: the gateway's own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from msgspec import UNSET

from gateway.calls import ErrorType
from gateway.relay.upstream.change_stream import ChangeStream
from gateway.relay.upstream.changes import Listeners, wanted_of
from gateway.relay.upstream.hearing import Hearing
from gateway.relay.upstream.seam import Changed, Exchange, Reply, UpstreamError
from gateway.relay.upstream.session import LegacySession, Session
from gateway.relay.upstream.transport import Transport

logger = logging.getLogger(__name__)

MIN_PAUSE_S: Final = 0.5
MAX_PAUSE_S: Final = 30.0
STEADY_S: Final = 5.0
"""A stream that ended sooner is not opened again at once."""

Own = Callable[[], Awaitable[Session]]
"""Gives the gateway's own session, negotiated if it has to be."""
Send = Callable[[Session, Exchange], Awaitable[Reply]]


class HttpListening:
    """What is open for the listeners of one server."""

    def __init__(self, transport: Transport, listeners: Listeners, hearing: Hearing, *, own: Own, send: Send) -> None:
        self._transport = transport
        self._listeners = listeners
        self._hearing = hearing
        self._own = own
        self._send = send
        self._uris: frozenset[str] = frozenset()
        self._stream: ChangeStream | None = None
        self._session: LegacySession | None = None
        self._lock = asyncio.Lock()
        self._broken = asyncio.Event()
        self._missed = False
        """Whether it could not be opened since it was open last."""
        self._keeping: asyncio.Task[None] | None = None

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

    async def subscribe(self, uris: frozenset[str]) -> None:
        """Have just these resources followed, and the stream open on which they are told.

        Raises:
            UpstreamError: the server cannot be reached, or refuses.
        """
        before, self._uris = self._uris, uris
        if self._listeners or self._session is not None:
            try:
                await self._open()
            except UpstreamError as error:
                if error.error_type is ErrorType.JSONRPC_ERROR and self._uris is uris:
                    self._uris = before  # what is refused now is refused later
                raise

    def lost(self, session: LegacySession) -> None:
        """A session of the server's is gone, and with it what it had subscribed to."""
        if session is self._session:
            self._session = None
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
            began = loop.time()
            try:
                await self._open()
            except UpstreamError as error:
                logger.info("upstream %s: its changes cannot be heard: %s", self._transport.slug, error)
            else:
                await self._broken.wait()
            short = self._missed or loop.time() - began < STEADY_S
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
                if isinstance(session, LegacySession):
                    self._close_stream()
                    await self._open_legacy(session)
                else:
                    self._session = None
                    await self._open_modern(session)
            except UpstreamError:
                self._missed = True
                raise
            if self._missed:
                self._missed = False
                self._tell_all()

    # -- a modern server

    async def _open_modern(self, session: Session) -> None:
        """The new stream is open before the old one is closed, so that no change falls between them."""
        wanted = wanted_of(session.declared, self._uris)
        stream = self._stream
        if wanted.is_empty or not self._listeners:
            self._close_stream()
            return
        if stream is not None and not stream.ended.done() and (stream.session, stream.wanted) == (session, wanted):
            return
        opened = await ChangeStream.open(self._transport, session, wanted, self._listeners)
        self._close_stream()
        if not self._listeners:
            opened.close()
            return
        self._stream = opened
        opened.ended.add_done_callback(lambda _: self._ended(opened))

    def _ended(self, stream: ChangeStream) -> None:
        if stream is self._stream:
            self._stream = None
            self._broken.set()

    def _close_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    # -- a legacy server

    async def _open_legacy(self, session: LegacySession) -> None:
        self._session = session
        await self._hearing.hear(session)
        for uri in sorted(session.subscribed - self._uris):
            await self._resource(session, "resources/unsubscribe", uri)
            session.subscribed -= {uri}
        for uri in sorted(self._uris - session.subscribed):
            await self._resource(session, "resources/subscribe", uri)
            session.subscribed |= {uri}

    async def _resource(self, session: LegacySession, method: str, uri: str) -> None:
        reply = await self._send(session, Exchange(method, {"uri": uri}, repeatable=True))
        if reply.error is not UNSET and method == "resources/subscribe":
            why = bytes(reply.error)[:200].decode("utf-8", "replace")
            raise UpstreamError(ErrorType.JSONRPC_ERROR, f"refused to subscribe to {uri[:200]!r}: {why}")
