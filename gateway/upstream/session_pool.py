"""One session or process for each token of a server: found by its key, and ended when it is idle or in the way."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar


class SessionKey(NamedTuple):
    """Whose a session is. Clients that declare different capabilities cannot share one."""

    token_id: str | None
    client_capabilities: bytes


GATEWAY_KEY = SessionKey(None, b"{}")
"""For the gateway's own requests: listings, probes and subscriptions."""


class PooledSession(Protocol):
    """A session that is ended only while it is idle."""

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything of it."""


S = TypeVar("S", bound=PooledSession)


class SessionPool(Generic[S]):
    """Sessions by their keys, the least recently used first. `end` is called with each one that the pool gives up."""

    def __init__(self, end: Callable[[S], None], *, max_size: int, idle_s: float) -> None:
        self._end = end
        self._max_size = max_size
        self._idle_s = idle_s
        self._sessions: OrderedDict[SessionKey, S] = OrderedDict()
        self._used_at: dict[SessionKey, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __iter__(self) -> Iterator[S]:
        return iter(list(self._sessions.values()))

    def get(self, key: SessionKey) -> S | None:
        """The session, which counts as used now."""
        session = self._sessions.get(key)
        if session is not None:
            self._sessions.move_to_end(key)
            self._used_at[key] = asyncio.get_running_loop().time()
        return session

    def put(self, key: SessionKey, session: S) -> None:
        """Add a session; one of the same key is ended."""
        self.remove(key, end=True)
        self._sessions[key] = session
        loop = asyncio.get_running_loop()
        self._used_at[key] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._idle_s / 4, self._sweep)

    def make_room(self) -> bool:
        """End idle sessions until one more fits; False if too many are busy."""
        for key, session in list(self._sessions.items()):
            if len(self._sessions) < self._max_size:
                break
            if session.is_idle:
                self.remove(key, end=True)
        return len(self._sessions) < self._max_size

    def remove(self, key: SessionKey, *, end: bool) -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            del self._used_at[key]
            if end:
                self._end(session)

    def discard(self, session: S) -> None:
        """Remove a session that the server does not know any more."""
        for key, known in list(self._sessions.items()):
            if known is session:
                self.remove(key, end=False)

    def clear(self) -> list[S]:
        """Remove all sessions, for the caller to end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        sessions = list(self)
        self._sessions.clear()
        self._used_at.clear()
        return sessions

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for key, session in list(self._sessions.items()):
            if not session.is_idle:
                self._used_at[key] = now  # it is idle from the end of its last request on
            elif self._used_at[key] <= now - self._idle_s:
                self.remove(key, end=True)
        self._timer = loop.call_later(self._idle_s / 4, self._sweep) if self._sessions else None
