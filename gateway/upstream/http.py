"""MCP over Streamable HTTP, both eras: whose session a request goes over, and what is begun anew when it is gone.

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
from gateway.mcp.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, PARSE_ERROR
from gateway.mcp.revisions import Era
from gateway.upstream import discovery, request_meta
from gateway.upstream.base import Changed, UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.http_response import BAD_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, code_of
from gateway.upstream.http_session import HttpSession, LegacyHttpSession
from gateway.upstream.http_sessions import OWN_KEY, HttpSessionPool, SessionKey
from gateway.upstream.http_subscriptions import HttpSubscriptions
from gateway.upstream.http_transport import HttpTransport, PoolOf
from gateway.upstream.server_requests import ServerRequests
from gateway.upstream.session_stream import SessionStreams

__all__ = ["HttpUpstream", "PoolOf"]

NEGOTIATION_TIMEOUT_S: Final = 10.0
REPROBE_AFTER_S: Final = 5.0
"""A server that refuses what it should take is asked for its era anew, but not more often than this."""
SESSION_CHECK_TIMEOUT_S: Final = 2.0
"""How long a `ping` may take that finds out whether the server still knows a session."""
_OTHER_ERA_STATUSES: Final = frozenset({BAD_REQUEST, NOT_FOUND, METHOD_NOT_ALLOWED})
"""How a server answers a request of the era that it does not speak, if not with a JSON-RPC error."""
_MODERN_REFUSALS: Final = discovery.MODERN_CODES | {UNSUPPORTED_PROTOCOL_VERSION}
"""Codes that only a modern server gives, to a request that it has not carried out."""
_MODERN_ERRORS: Final = discovery.MODERN_CODES | {METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR, PARSE_ERROR}
"""Codes with which a modern server answers a modern request."""


class HttpUpstream:
    """An upstream behind a URL. Any number of requests may be under way; each session is negotiated once at a time."""

    def __init__(self, slug: str, server: HttpServer, pool_of: PoolOf) -> None:
        self.slug = slug
        self._listeners = ChangeNotifier()
        self._transport = HttpTransport(slug, server, pool_of, self._listeners)
        self.address: str | None = self._transport.address
        self._hearing = SessionStreams(self._transport, self._listeners, self._lost)
        self._sessions = HttpSessionPool(self._transport, self._hearing)
        self._listening = HttpSubscriptions(
            self._transport, self._listeners, self._hearing, own=self._own, send=self._transport.send
        )
        self._modern: HttpSession | None = None
        self._era: Era | None = None
        self._declared: Raw | None = None
        self._probed_at = float("-inf")
        self._negotiating: dict[SessionKey | None, asyncio.Task[HttpSession | None]] = {}
        """By whose session it is; None: which era the server speaks."""

    @property
    def era(self) -> Era | None:
        """Which era the server speaks; None before the first contact."""
        return self._era

    @property
    def declared(self) -> Raw | None:
        """The `ServerCapabilities` that the server declared last; None before the first contact."""
        return self._declared

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for its answer; it is sent again at most once, in a new session or the other era.

        Raises:
            UpstreamError: see `Upstream.request`.
        """
        session = self._modern or await self._session_for(request)
        try:
            reply, response = await self._send(session, request)
            if reply.error is UNSET:
                return reply
        except UpstreamError as error:
            if error.http_status is None or not await self._to_be_repeated(session, request, error.http_status, None):
                raise
        else:
            if not await self._to_be_repeated(session, request, response.status, code_of(reply.error)):
                return reply
        request.reset_phases()
        reply, _ = await self._send(self._modern or await self._session_for(request), request)
        return reply

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Hear of changes; see `Upstream.listen`."""
        stop = self._listening.listen(changed)
        self._sessions.hear_all()
        return stop

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        """Ask for updates of just these resources; see `Upstream.subscribe`.

        Raises:
            UpstreamError: the server cannot be reached, or refuses.
        """
        return await self._listening.subscribe(uris)

    async def close(self) -> None:
        """Stop what runs for this server, and end its sessions; its connections belong to the process."""
        tasks = list(self._negotiating.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._listening.close()
        await self._sessions.close()
        await self._transport.close()

    # -- a session for each token

    def _send(
        self, session: HttpSession, request: UpstreamRequest
    ) -> Coroutine[Any, Any, tuple[UpstreamResponse, HttpResponse]]:
        if isinstance(session, LegacyHttpSession):
            return self._send_in(session, request)
        return self._transport.attempt(session, request)

    async def _send_in(
        self, session: LegacyHttpSession, request: UpstreamRequest
    ) -> tuple[UpstreamResponse, HttpResponse]:
        """Send a request to a legacy server, which may send requests of its own to the client meanwhile."""
        client = request.client
        asked = session.nobody
        if client is not None:
            asked = ServerRequests(client, functools.partial(self._transport.post_soon, session))
        session.pending[request] = asked
        try:
            level = session.raise_level(request_meta.log_level(request))
            if level is not None:
                with contextlib.suppress(UpstreamError):  # what is wrong, the request itself will show
                    set_level = UpstreamRequest("logging/setLevel", {"level": level}, repeatable=True)
                    await self._transport.attempt(session, set_level)
            return await self._transport.attempt(session, request)
        finally:
            del session.pending[request]
            if asked is not session.nobody:
                asked.end()

    # -- a session that is gone, and a server that has changed its era

    async def _to_be_repeated(
        self, session: HttpSession, request: UpstreamRequest, status: int, code: int | None
    ) -> bool:
        """Whether a refused request is sent again; the text of the refusal does not matter.

        HTTP 404 says that the session is gone, and a modern server's codes that it speaks the other era: the server
        has not carried out the request. After any other refusal it may have: only what is repeatable is sent again.
        """
        if not await self._was_out_of_date(session, status, code):
            return False
        return request.repeatable or status == NOT_FOUND or code in _MODERN_REFUSALS

    async def _was_out_of_date(self, session: HttpSession, status: int, code: int | None) -> bool:
        """Whether the server does not know the session (any more), or speaks the other era now."""
        if isinstance(session, LegacyHttpSession):
            if session.session_id is not None and code not in _MODERN_REFUSALS:
                gone = status == NOT_FOUND or (status == BAD_REQUEST and not await self._is_known(session))
                if gone:
                    self._lost(session)
                    return True
            hint = status in _OTHER_ERA_STATUSES if code is None else code in _MODERN_REFUSALS
        else:
            hint = status in _OTHER_ERA_STATUSES and code not in _MODERN_ERRORS
        return hint and await self._reprobed(session) is not session.era

    async def _is_known(self, session: LegacyHttpSession) -> bool:
        """Whether the server still knows a session, by a `ping` in it; without an answer to that it is kept.

        Many servers answer HTTP 400 instead of 404 when they do not know a session, but also when only the arguments
        of a call are wrong.
        """
        if session not in self._sessions:
            return False  # another request has found out
        try:
            async with asyncio.timeout(SESSION_CHECK_TIMEOUT_S):
                reply, response = await self._transport.attempt(session, UpstreamRequest("ping", {}, repeatable=True))
        except TimeoutError:
            return True
        except UpstreamError as error:
            return error.http_status not in (BAD_REQUEST, NOT_FOUND)
        knows_no_ping = reply.error is not UNSET and code_of(reply.error) == METHOD_NOT_FOUND
        return knows_no_ping or response.status not in (BAD_REQUEST, NOT_FOUND)

    def _lost(self, session: LegacyHttpSession) -> None:
        self._sessions.drop(session)
        self._listening.lost(session)

    async def _session_for(self, request: UpstreamRequest) -> HttpSession:
        token_id = None if self._sessions.stateless else request.token_id
        return await self._session(SessionKey(token_id, bytes(request_meta.askable(request.client))))

    async def _own(self) -> HttpSession:
        return self._modern or await self._session(OWN_KEY)

    async def _session(self, key: SessionKey) -> HttpSession:
        known = self._sessions.get(key)
        if known is not None:
            return known
        begun = await self._once(key, functools.partial(self._negotiate, key))
        return begun or await self._session(key)

    # -- negotiation

    async def _once(
        self, key: SessionKey | None, make: Callable[[], Coroutine[Any, Any, HttpSession | None]]
    ) -> HttpSession | None:
        """Negotiate by one task however many wait; a cancelled waiter leaves it running."""
        task = self._negotiating.get(key)
        if task is None:
            task = self._negotiating[key] = asyncio.create_task(make())
            task.add_done_callback(lambda done: self._settled(key, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            waiting = asyncio.current_task()
            if not task.cancelled() or (waiting is not None and waiting.cancelling()):
                raise
            raise UpstreamError(ErrorType.UPSTREAM_UNREACHABLE, "is not served any more") from None

    def _settled(self, key: SessionKey | None, task: asyncio.Task[HttpSession | None]) -> None:
        self._negotiating.pop(key, None)
        if not task.cancelled():
            task.exception()  # perhaps nobody waits any more

    async def _negotiate(self, key: SessionKey) -> HttpSession:
        known = self._era
        if known is None:
            modern = await self._once(None, self._probe)
            if modern is not None:
                return modern
        try:
            async with _deadline():
                session = await discovery.initialize(self._transport, Raw(key.askable))
        except UpstreamError as error:
            modern = await self._probe() if known is not None and error.http_status is not None else None
            if modern is None:
                raise
            return modern
        self._era, self._declared, self._modern = Era.LEGACY, session.declared, None
        await self._sessions.add(key, session)
        return session

    async def _probe(self) -> HttpSession | None:
        """The session of a modern server, which is what the server is from now on; None for a legacy one."""
        self._probed_at = asyncio.get_running_loop().time()
        async with _deadline():
            modern = await discovery.discover(self._transport)
        if modern is not None:
            self._era, self._declared, self._modern = Era.MODERN, modern.declared, modern
            for session in self._sessions:
                self._lost(session)
        return modern

    async def _reprobed(self, session: HttpSession) -> Era:
        """The era, asked for anew after a refusal that tells of the other one."""
        before = session.era
        if self._era is not before and self._era is not None:
            return self._era  # another request has found out
        if None not in self._negotiating and asyncio.get_running_loop().time() - self._probed_at < REPROBE_AFTER_S:
            return before
        try:
            modern = await self._once(None, self._probe)
        except UpstreamError:
            return before
        if modern is not None:
            return Era.MODERN
        if before is Era.MODERN and self._modern is session:
            self._modern, self._era = None, Era.LEGACY
        return Era.LEGACY


@contextlib.asynccontextmanager
async def _deadline() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(NEGOTIATION_TIMEOUT_S):
            yield
    except TimeoutError as error:
        raise UpstreamError(
            ErrorType.UPSTREAM_TIMEOUT, f"did not finish its handshake within {NEGOTIATION_TIMEOUT_S:g} s"
        ) from error
