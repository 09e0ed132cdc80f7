"""MCP over Streamable HTTP, both eras: whose session a request goes over, and what is begun anew when it is gone.

Source: specification 2026-07-28 and 2025-11-25, basic/transports/streamable-http; versioning, "Era detection".
"""

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Final

from mcp_types.jsonrpc import UNSUPPORTED_PROTOCOL_VERSION
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.config import HttpServer
from gateway.http1.client import HttpResponse
from gateway.mcp import jsonrpc
from gateway.mcp.revisions import Era
from gateway.upstream import discovery, http_response, request_meta
from gateway.upstream.base import Changed, UpstreamError, UpstreamRequest, UpstreamResponse
from gateway.upstream.change_listeners import ChangeNotifier
from gateway.upstream.http_response import BAD_REQUEST
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
_OTHER_ERA: Final = frozenset({BAD_REQUEST, http_response.NOT_FOUND, http_response.METHOD_NOT_ALLOWED})
"""How a server answers a request of the era that it does not speak, if not by a JSON-RPC error."""
_OF_MODERN: Final = frozenset(
    {
        *discovery.MODERN_CODES,
        jsonrpc.METHOD_NOT_FOUND,
        jsonrpc.INVALID_PARAMS,
        jsonrpc.INTERNAL_ERROR,
        jsonrpc.PARSE_ERROR,
    }
)
"""What a modern server answers with those statuses; another code is a legacy server's, to a request without session."""
_NOT_LEGACY: Final = discovery.MODERN_CODES | {UNSUPPORTED_PROTOCOL_VERSION}
_NO_SESSION: Final = re.compile(
    rb"(?i)\b(no|invalid|unknown|missing|expired|bad)\b[^\"]{0,24}\bsession"
    rb"|\bsession\b[^\"]{0,48}\b(not found|not valid|invalid|expired|unknown|terminated|does not exist)"
    rb"|\bnot initialized\b"
)
"""What servers say with HTTP 400 of a session that they do not know, where the revision has 404."""


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
            self._transport, self._listeners, self._hearing, own=self._own, send=self._send_in
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
        """Send a request and wait for its answer; a session that is gone is begun anew, once.

        Raises:
            UpstreamError: see `Upstream.request`.
        """
        session = self._modern
        if session is None:
            return await self._request_in_session(request)
        try:
            reply, response = await self._transport.attempt(session, request)
            if response.status < BAD_REQUEST:
                return reply
        except UpstreamError as error:
            if error.http_status not in _OTHER_ERA or await self._reprobed(session) is Era.MODERN:
                raise
        else:
            refused = response.status in _OTHER_ERA and _code(reply) not in _OF_MODERN
            if not refused or await self._reprobed(session) is Era.MODERN:
                return reply
        _begin_anew(request)
        return await self._request_in_session(request)

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

    async def _request_in_session(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send it as what the server turns out to be; a session that it does not know is begun anew, once."""
        session = await self._session_for(request)
        if not isinstance(session, LegacyHttpSession):
            reply, _ = await self._transport.attempt(session, request)
            return reply
        try:
            reply, response = await self._in(session, request)
            if not await self._is_gone(session, response.status, reply):
                return reply
        except UpstreamError as error:
            if error.http_status is None or not await self._is_gone(session, error.http_status, error.response or b""):
                raise
        _begin_anew(request)
        again = await self._session_for(request)
        if isinstance(again, LegacyHttpSession):
            reply, _ = await self._in(again, request)
        else:
            reply, _ = await self._transport.attempt(again, request)
        return reply

    async def _in(self, session: LegacyHttpSession, request: UpstreamRequest) -> tuple[UpstreamResponse, HttpResponse]:
        client = request.client
        asked = session.nobody
        if client is not None:
            asked = ServerRequests(client, functools.partial(self._transport.post_soon, session))
        session.pending[request] = asked
        try:
            level = session.raise_level(request_meta.log_level(request))
            if level is not None:
                with contextlib.suppress(UpstreamError):  # what is wrong, the request itself will show
                    await self._send_in(session, UpstreamRequest("logging/setLevel", {"level": level}, repeatable=True))
            return await self._transport.attempt(session, request)
        finally:
            del session.pending[request]
            if asked is not session.nobody:
                asked.end()

    async def _is_gone(self, session: LegacyHttpSession, status: int, answer: UpstreamResponse | bytes) -> bool:
        """Whether the request has not been served, as the server knows no such session, or speaks another era now."""
        said = answer if isinstance(answer, bytes) else bytes(answer.error) if answer.error is not UNSET else b""
        has_id = session.session_id is not None
        if has_id and (status == http_response.NOT_FOUND or (status == BAD_REQUEST and _NO_SESSION.search(said))):
            self._lost(session)
            return True
        if isinstance(answer, bytes):
            return status in _OTHER_ERA and await self._reprobed(session) is Era.MODERN
        return _code(answer) in _NOT_LEGACY and await self._reprobed(session) is Era.MODERN

    def _lost(self, session: LegacyHttpSession) -> None:
        self._sessions.drop(session)
        self._listening.lost(session)

    async def _session_for(self, request: UpstreamRequest) -> HttpSession:
        if self._modern is not None:
            return self._modern
        token_id = None if self._sessions.stateless else request.token_id
        return await self._session(SessionKey(token_id, bytes(request_meta.askable(request.client))))

    async def _own(self) -> HttpSession:
        return self._modern or await self._session(OWN_KEY)

    async def _send_in(self, session: HttpSession, request: UpstreamRequest) -> UpstreamResponse:
        reply, _ = await self._transport.attempt(session, request)
        return reply

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


def _code(reply: UpstreamResponse) -> int | None:
    return http_response.code_of(reply.error) if reply.error is not UNSET else None


def _begin_anew(request: UpstreamRequest) -> None:
    """The phases of what is sent again."""
    request.acquired_ns = request.sent_ns = request.first_byte_ns = request.done_ns = 0
    request.http_status = None
