"""The sessions with one legacy server: one for each token and what its client can be asked, and the gateway's own.

Its laws: there are at most `MAX_SESSIONS`, and none stays unused for longer than `IDLE_S`; what is ended here is ended
upstream as well; a session that has a request under way is not ended.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from gateway.upstream.http_session import LegacyHttpSession
from gateway.upstream.http_transport import HttpTransport
from gateway.upstream.session_stream import SessionStreams

MAX_SESSIONS: Final = 256
IDLE_S: Final = 600.0
MAX_HEARD: Final = 64
"""Sessions whose own streams are open at a time."""
END_S: Final = 2.0
"""How long the ending of all sessions may take when the upstream is closed."""


class SessionKey(NamedTuple):
    """Whose a session is."""

    token_id: str | None
    askable: bytes


OWN_KEY: Final = SessionKey(None, b"{}")


class HttpSessionPool:
    """Sessions by whose they are, the least recently used first."""

    def __init__(self, transport: HttpTransport, hearing: SessionStreams) -> None:
        self._transport = transport
        self._hearing = hearing
        self._sessions: OrderedDict[SessionKey, LegacyHttpSession] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None
        self.stateless = False
        """Whether the server gave no session id: then one of its sessions is as good as another."""

    def __iter__(self) -> Iterator[LegacyHttpSession]:
        return iter(list(self._sessions.values()))

    def get(self, key: SessionKey) -> LegacyHttpSession | None:
        """The session, which is in use from now on."""
        session = self._sessions.get(key)
        if session is not None:
            self._sessions.move_to_end(key)
            session.used_at = asyncio.get_running_loop().time()
        return session

    async def add(self, key: SessionKey, session: LegacyHttpSession) -> None:
        """Take a session that has begun, and hear its stream if anything of it is wanted."""
        self.stateless = session.session_id is None
        if self.stateless:
            key = key._replace(token_id=None)
        session.used_at = asyncio.get_running_loop().time()
        before = self._sessions.pop(key, None)
        self._sessions[key] = session
        if before is not None:
            self._end(before)
        self._make_room()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(IDLE_S / 4, self._sweep)
        if key.askable != OWN_KEY.askable or key == OWN_KEY or self._hearing.count < MAX_HEARD:
            await self._hearing.hear(session, always=key.askable != OWN_KEY.askable)

    def drop(self, session: LegacyHttpSession) -> None:
        """The server does not know it any more."""
        for key, known in list(self._sessions.items()):
            if known is session:
                del self._sessions[key]
        self._hearing.stop(session)

    def hear_all(self) -> None:
        """There is a listener: changes may come on any session's stream."""
        for session in list(reversed(self._sessions.values()))[:MAX_HEARD]:
            self._hearing.begin(session)

    async def close(self) -> None:
        """End all sessions; a server that does not answer is not waited for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sessions = [session for session in self if session.session_id is not None]
        await self._hearing.close()
        self._sessions.clear()
        if sessions:
            ending = [asyncio.ensure_future(self._transport.end(session)) for session in sessions]
            _, late = await asyncio.wait(ending, timeout=END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)

    # -- what is ended

    def _make_room(self) -> None:
        excess = len(self._sessions) - MAX_SESSIONS
        for key in [key for key, one in self._sessions.items() if key != OWN_KEY and not one.pending][: max(excess, 0)]:
            self._end(self._sessions.pop(key))

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time() - IDLE_S
        for key, session in list(self._sessions.items()):
            if session.used_at <= since and not session.pending and not (key == OWN_KEY and self._hearing.wanted):
                self._end(self._sessions.pop(key))
        self._timer = loop.call_later(IDLE_S / 4, self._sweep) if self._sessions else None

    def _end(self, session: LegacyHttpSession) -> None:
        self._hearing.stop(session)
        if session.session_id is not None:
            self._transport.soon(self._transport.end(session))
