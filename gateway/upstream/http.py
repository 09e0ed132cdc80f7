"""MCP over Streamable HTTP in both eras: which session a request goes over, and what is done when it is out of date.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/streamable-http; versioning, "Era detection".
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Final

from mcp_types.jsonrpc import UNSUPPORTED_PROTOCOL_VERSION
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.config import HttpServer
from gateway.http1.client import HttpResponse
from gateway.mcp.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, PARSE_ERROR, code_of
from gateway.mcp.revisions import Era
from gateway.upstream import discovery
from gateway.upstream.base import OnChange, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamTimings
from gateway.upstream.http_response import BAD_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND
from gateway.upstream.http_session import HttpSession, LegacyHttpSession
from gateway.upstream.http_transport import HttpTransport, PoolFactory
from gateway.upstream.server_subscriptions import ChangeNotifier, ServerSubscriptions
from gateway.upstream.session_pool import GATEWAY_KEY, SessionKey, SessionPool
from gateway.upstream.session_stream import SessionStreams

__all__ = ["HttpUpstream", "PoolFactory"]

MAX_SESSIONS: Final = 256
MAX_STREAMS: Final = 64
"""Of sessions whose clients can be sent no requests: on theirs only changes come, as on every other."""
_OTHER_ERA_STATUSES: Final = frozenset({BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED})
"""How a server answers a request of the era that it does not speak, if not with a JSON-RPC error."""
_MODERN_REFUSALS: Final = discovery.MODERN_CODES | {UNSUPPORTED_PROTOCOL_VERSION}
"""Codes that only a modern server gives, to a request that it has not carried out."""
_MODERN_ERRORS: Final = discovery.MODERN_CODES | {METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR, PARSE_ERROR}
"""Codes with which a modern server answers a modern request."""


class HttpUpstream:
    """An upstream behind a URL. Requests run side by side; each session is negotiated by one task at a time."""

    def __init__(
        self,
        slug: str,
        server: HttpServer,
        pool_for: PoolFactory,
        timings: UpstreamTimings,
        *,
        max_sessions: int = MAX_SESSIONS,
    ) -> None:
        self.era: Era | None = None
        self.declared: Raw | None = None
        self._notifier = ChangeNotifier(timings.quiet_s)
        self._transport = HttpTransport(slug, server, pool_for, self._notifier)
        self.address: str | None = self._transport.address
        self._subscriptions = ServerSubscriptions[HttpSession](slug, self, self._notifier, timings)
        self._streams = SessionStreams(
            self._transport, timings, expired=self._expire, reopened=self._subscriptions.stream_reopened
        )
        self._timings = timings
        self._sessions = SessionPool(self._end, max_size=max_sessions, idle_s=timings.idle_s)
        self._is_stateless = False
        """Whether the legacy server gave no session id: then all tokens share one session."""
        self._modern: HttpSession | None = None
        self._probed_at = float("-inf")
        self._negotiating: dict[SessionKey | None, asyncio.Task[HttpSession | None]] = {}
        """By whose session it is; None: the probe for the era."""

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request; it is sent twice at most, the second time in a new session or the other era."""
        session = self._modern or await self._session_for(request)
        try:
            reply, response = await self._send(session, request)
            if reply.error is UNSET:
                return reply
        except UpstreamError as error:
            if error.http_status is None or not await self._is_to_be_repeated(session, request, error.http_status):
                raise
        else:
            if not await self._is_to_be_repeated(session, request, response.status, code_of(reply.error)):
                return reply
        request.reset_phases()
        reply, _ = await self._send(self._modern or await self._session_for(request), request)
        return reply

    def listen(self, changed: OnChange) -> None:
        self._subscriptions.listen(changed)
        for session in list(reversed(list(self._sessions)))[:MAX_STREAMS]:
            self._streams.start(session)  # a legacy server may report changes on the stream of any session

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        return await self._subscriptions.subscribe(uris)

    async def close(self) -> None:
        """Stop what runs for this server, and end its sessions; its connections belong to the process."""
        tasks = list(self._negotiating.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._subscriptions.close()
        await self._streams.close()
        endings = [self._transport.end(session) for session in self._sessions.clear() if session.session_id is not None]
        with contextlib.suppress(TimeoutError):  # a server that does not answer is not waited for
            async with asyncio.timeout(self._timings.close_s):
                await asyncio.gather(*endings, return_exceptions=True)
        await self._transport.close()

    # -- for ServerSubscriptions

    async def subscription_session(self, *, start: bool) -> HttpSession:  # noqa: ARG002 - only processes are started
        session = self._modern or await self._session(GATEWAY_KEY)
        if isinstance(session, LegacyHttpSession):
            session.pinned = True
            await self._streams.open(session)
        return session

    async def send_in(self, session: HttpSession, request: UpstreamRequest) -> UpstreamResponse:
        reply, _ = await self._transport.attempt(session, request)
        return reply

    # -- one attempt

    def _send(
        self, session: HttpSession, request: UpstreamRequest
    ) -> Coroutine[Any, Any, tuple[UpstreamResponse, HttpResponse]]:
        if isinstance(session, LegacyHttpSession):
            return self._send_legacy(session, request)
        return self._transport.attempt(session, request)

    async def _send_legacy(
        self, session: LegacyHttpSession, request: UpstreamRequest
    ) -> tuple[UpstreamResponse, HttpResponse]:
        """Send a request to a server that may send requests of its own to the client meanwhile."""
        session.begin(request, functools.partial(self._transport.post_soon, session))
        try:
            level = session.raise_level(request.log_level)
            if level is not None:
                with contextlib.suppress(UpstreamError):  # what is wrong, the request itself will show
                    await self.send_in(session, UpstreamRequest("logging/setLevel", {"level": level}, repeatable=True))
            return await self._transport.attempt(session, request)
        finally:
            session.finish(request)

    # -- a session that is gone, and a server that has changed its era

    async def _is_to_be_repeated(
        self, session: HttpSession, request: UpstreamRequest, status: int, code: int | None = None
    ) -> bool:
        """Whether a refused request is sent again; the text of the refusal does not matter.

        HTTP 404 says that the session is gone, and a modern server's codes that it speaks the other era: the server
        has not carried out the request. After any other refusal it may have: only what is repeatable is sent again.
        """
        if not await self._is_out_of_date(session, status, code):
            return False
        return request.repeatable or status == NOT_FOUND or code in _MODERN_REFUSALS

    async def _is_out_of_date(self, session: HttpSession, status: int, code: int | None) -> bool:
        """Whether the server does not know the session any more, or speaks the other era now."""
        if isinstance(session, LegacyHttpSession):
            may_be_gone = session.session_id is not None and code not in _MODERN_REFUSALS
            if may_be_gone and await self._is_gone(session, status):
                self._expire(session)
                return True
            hint = status in _OTHER_ERA_STATUSES if code is None else code in _MODERN_REFUSALS
        else:
            hint = status in _OTHER_ERA_STATUSES and code not in _MODERN_ERRORS
        return hint and await self._reprobed(session) is not session.era

    async def _is_gone(self, session: LegacyHttpSession, status: int) -> bool:
        """Whether the server does not know a session any more: HTTP 404 says so, after 400 a `ping` finds out.

        Many servers give HTTP 400 instead of 404 for a session that they do not know, but also for a call whose
        arguments are wrong. Without an answer to the ping the session is kept.
        """
        if status != BAD_REQUEST or session not in self._sessions:  # another request may have found out
            return status in (BAD_REQUEST, NOT_FOUND)
        try:
            async with asyncio.timeout(self._timings.ping_s):
                reply, response = await self._transport.attempt(session, UpstreamRequest("ping", {}, repeatable=True))
        except TimeoutError:
            return False
        except UpstreamError as error:
            return error.http_status in (BAD_REQUEST, NOT_FOUND)
        lacks_ping = reply.error is not UNSET and code_of(reply.error) == METHOD_NOT_FOUND
        return not lacks_ping and response.status in (BAD_REQUEST, NOT_FOUND)

    def _expire(self, session: LegacyHttpSession) -> None:
        """The server does not know the session any more."""
        self._sessions.discard(session)
        self._streams.stop(session)
        self._subscriptions.session_ended(session)

    def _end(self, session: LegacyHttpSession) -> None:
        """The gateway does not need the session any more."""
        self._streams.stop(session)
        if session.session_id is not None:
            self._transport.run_soon(self._transport.end(session))

    # -- sessions and eras

    async def _session_for(self, request: UpstreamRequest) -> HttpSession:
        token_id = None if self._is_stateless else request.token_id
        return await self._session(SessionKey(token_id, bytes(request.client_capabilities)))

    async def _session(self, key: SessionKey) -> HttpSession:
        known = self._sessions.get(key)
        if known is not None:
            return known
        session = await self._once(key, functools.partial(self._negotiate, key))
        assert session is not None  # noqa: S101 - only a probe gives None
        return session

    async def _once(
        self, key: SessionKey | None, negotiate: Callable[[], Coroutine[Any, Any, HttpSession | None]]
    ) -> HttpSession | None:
        """Negotiate in one task, however many wait for it."""
        task = self._negotiating.get(key)
        if task is None:
            task = self._negotiating[key] = asyncio.create_task(negotiate())
            task.add_done_callback(lambda done: self._negotiated(key, done))
        await asyncio.wait([task])  # a waiter that is cancelled leaves it running
        if task.cancelled():
            raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, "is not served any more")
        return task.result()

    def _negotiated(self, key: SessionKey | None, task: asyncio.Task[HttpSession | None]) -> None:
        self._negotiating.pop(key, None)
        if not task.cancelled():
            task.exception()  # mark it as retrieved: every waiter may have been cancelled

    async def _negotiate(self, key: SessionKey) -> HttpSession:
        known = self.era
        if known is None:
            modern = await self._once(None, self._probe)
            if modern is not None:
                return modern
        try:
            async with self._handshake_timeout():
                session = await discovery.initialize(self._transport, Raw(key.client_capabilities))
        except UpstreamError as error:
            modern = await self._probe() if known is not None and error.http_status is not None else None
            if modern is None:
                raise
            return modern
        self.era, self.declared, self._modern = Era.LEGACY, session.declared, None
        await self._add(key, session)
        return session

    async def _add(self, key: SessionKey, session: LegacyHttpSession) -> None:
        self._is_stateless = session.session_id is None
        if self._is_stateless:
            key = key._replace(token_id=None)
        self._sessions.make_room()
        self._sessions.put(key, session)
        can_be_asked = key.client_capabilities != GATEWAY_KEY.client_capabilities
        has_room = key == GATEWAY_KEY or self._streams.count < MAX_STREAMS
        if can_be_asked or (self._notifier.is_active and has_room):
            await self._streams.open(session)

    async def _probe(self) -> HttpSession | None:
        """The session of a modern server, which is what the server is from now on; None for a legacy one."""
        self._probed_at = asyncio.get_running_loop().time()
        async with self._handshake_timeout():
            modern = await discovery.discover(self._transport)
        if modern is not None:
            self.era, self.declared, self._modern = Era.MODERN, modern.declared, modern
            for session in self._sessions:
                self._expire(session)
        return modern

    async def _reprobed(self, session: HttpSession) -> Era:
        """The era, found out again after a refusal that hints at the other one."""
        if self.era is not None and self.era is not session.era:
            return self.era  # another request has found out
        is_recent = asyncio.get_running_loop().time() - self._probed_at < self._timings.reprobe_after_s
        if is_recent and None not in self._negotiating:
            return session.era
        try:
            modern = await self._once(None, self._probe)
        except UpstreamError:
            return session.era
        if modern is not None:
            return Era.MODERN
        if self._modern is session:
            self._modern, self.era = None, Era.LEGACY
        return Era.LEGACY

    @contextlib.asynccontextmanager
    async def _handshake_timeout(self) -> AsyncIterator[None]:
        seconds = self._timings.handshake_s
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            reason = f"did not finish its handshake within {seconds:g} s"
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, reason) from error
