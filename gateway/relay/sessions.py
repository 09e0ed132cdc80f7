"""Sessions of legacy clients (docs/adr/0004-sessions-in-their-ids.md).

Their law: what `initialize` said stands in the session's id, signed. So a relay that was started anew, or another one
of the same data folder, takes up a session that it has never seen, and one that it has forgotten. What is kept beside
the id is bounded: by sessions of a token, by the time that one is not used, by the messages that wait for its stream.

Source: specification 2025-11-25, basic/transports, "Session Management".
"""

import asyncio
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from msgspec import Raw, Struct

from gateway.journal import lines
from gateway.mcp import capabilities, inbound, jsonrpc, request_state
from gateway.mcp.jsonrpc import EMPTY_OBJECT, NO_JSON, Id, Params, Response
from gateway.mcp.request_state import Binding, InvalidStateError
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import MAX_RESOURCES
from gateway.relay.registry import Principal

HEADER: Final = b"mcp-session-id"
LIFETIME_S: Final = 30 * 86400.0
"""From `initialize` on; then the client has to begin anew."""
IDLE_S: Final = 1800.0
"""Unused for so long, a session is forgotten, and taken up again by its id."""
MAX_SESSIONS: Final = 500
"""Of one token, kept at a time."""
MAX_ENDED: Final = 10_000
MAX_QUEUED: Final = 2 * MAX_RESOURCES
"""Messages that wait for the client to open its stream, or to read it; then the oldest goes."""
FIRST_LEVEL: Final = "info"
"""The least severe log messages for a client that has not chosen a level: that is the server's to decide."""
_MAX_CAPABILITIES: Final = 2048
_NONCE_BYTES: Final = 16


class _Said(Struct, frozen=True, array_like=True):
    """What a session's id says beside whose it is."""

    nonce: str
    revision: str
    capabilities: Raw
    client_info: Raw


_decode_said: Final = msgspec.json.Decoder(_Said).decode


class LegacySession:
    """One client, from its `initialize` on."""

    __slots__ = (
        "_at_end",
        "_ids",
        "_queue",
        "_stirred",
        "_waiting",
        "can",
        "capabilities",
        "client",
        "client_info",
        "ended",
        "header",
        "id",
        "log_level",
        "members",
        "owner",
        "revision",
        "stream",
        "used_at",
    )

    def __init__(self, header: bytes, owner: Principal, said: _Said, now: float) -> None:
        self.header = header
        """`Mcp-LegacySession-Id`, as the client sends it."""
        self.id = said.nonce
        """What it is called in records; nobody can take part in a session who knows only this."""
        self.owner = owner
        self.revision = said.revision
        self.capabilities = said.capabilities
        self.can = capabilities.read_client(said.capabilities)
        self.client_info = said.client_info
        self.client = inbound.client_of(said.client_info)
        self.log_level = FIRST_LEVEL
        self.members = "," + lines.members(session_id=said.nonce)
        """Of a call's lines in the journal."""
        self.used_at = now
        self.stream: object | None = None
        """The newest one that the client has opened for what belongs to no request: only this one sends."""
        self.ended = False
        self._ids = itertools.count(1)
        self._waiting: dict[Id, asyncio.Future[Response]] = {}
        self._queue: OrderedDict[object, bytes] = OrderedDict()
        self._stirred = asyncio.Event()
        self._at_end: list[Callable[[], None]] = []

    @property
    def busy(self) -> bool:
        """Whether more than its level would be lost with it: its client has a stream open, or is asked something."""
        return self.stream is not None or bool(self._waiting)

    # -- what the client is asked

    def ask(self) -> tuple[int, asyncio.Future[Response]]:
        """A new id for a request to the client, and its answer; `asked` when it is not waited for any more."""
        request_id = next(self._ids)
        answer = self._waiting[request_id] = asyncio.get_running_loop().create_future()
        return request_id, answer

    def asked(self, request_id: int) -> None:
        """Nobody waits for this answer any more."""
        self._waiting.pop(request_id, None)

    def answered(self, request_id: Id, response: Response) -> None:
        """The client has answered; what nobody waits for is nothing."""
        answer = self._waiting.get(request_id)
        if answer is not None and not answer.done():
            answer.set_result(response)

    # -- what belongs to no request

    def tell(self, message: bytes, what: object = None) -> None:
        """A notification for the client's stream, now or as soon as it opens one.

        It takes the place of one that waits and says the same: `what` they say.
        """
        self._queue[object() if what is None else what] = message
        if len(self._queue) > MAX_QUEUED:
            self._queue.popitem(last=False)
        self._stirred.set()

    def next_message(self) -> bytes | None:
        """The oldest one that waits; None if there is none."""
        return self._queue.popitem(last=False)[1] if self._queue else None

    async def stirred(self) -> None:
        """Wait until a message waits, or there is something else that its stream has to look at."""
        await self._stirred.wait()
        self._stirred.clear()

    def stir(self) -> None:
        """Let the stream look at what has changed."""
        self._stirred.set()

    # -- its end

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call this when the session has ended or is forgotten."""
        self._at_end.append(callback)

    def end(self) -> None:
        """Nothing is sent over it any more."""
        self.ended = True
        self.stream = None
        for answer in self._waiting.values():
            answer.cancel()
        self._waiting.clear()
        self._stirred.set()
        callbacks, self._at_end = self._at_end, []
        for callback in callbacks:
            callback()


class Sessions:
    """Those of all tokens. `clock` is the time in seconds since the Unix epoch."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._keys = (key,)
        self._clock = clock
        self._of: dict[tuple[str, str], OrderedDict[bytes, LegacySession]] = {}
        self._ended: OrderedDict[bytes, None] = OrderedDict()

    def __iter__(self) -> Iterator[LegacySession]:
        return iter([session for of_token in self._of.values() for session in of_token.values()])

    def open(self, owner: Principal, params: Params, revision: str) -> LegacySession:
        """Begin one with what `initialize` said."""
        now = self._clock()
        declared = capabilities.for_upstream(params.get("capabilities"), Era.LEGACY, Era.LEGACY, bridged=True)
        client = inbound.client_of(params.get("clientInfo", EMPTY_OBJECT))
        said = _Said(
            secrets.token_urlsafe(_NONCE_BYTES),
            revision,
            declared if len(bytes(declared)) <= _MAX_CAPABILITIES else EMPTY_OBJECT,
            jsonrpc.raw({name: value for name, value in msgspec.structs.asdict(client).items() if value is not None}),
        )
        header = request_state.seal(self._keys, _binding(owner), said, now + LIFETIME_S).encode()
        return self._keep(LegacySession(header, owner, said, now))

    def find(self, owner: Principal, header: bytes) -> LegacySession | None:
        """The session with this id; None if there is none, it has ended, or it is somebody else's."""
        of_token = self._of.get((owner.workspace_id, owner.token_id))
        session = of_token.get(header) if of_token is not None else None
        if session is None or of_token is None:
            return self._take_up(owner, header)
        of_token.move_to_end(header)
        session.used_at = self._clock()
        return session

    def end(self, session: LegacySession) -> None:
        """The client is done: its id is not known any more."""
        self._ended[session.header] = None
        if len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
        self._forget(session)

    def sweep(self) -> None:
        """Forget what has not been used for long, and end what belongs to a token that has expired."""
        now = self._clock()
        for session in self:
            if session.owner.expires_at is not None and session.owner.expires_at <= now:
                self._forget(session)
            elif session.busy:
                session.used_at = now
            elif session.used_at <= now - IDLE_S:
                self._forget(session)

    def keep(self, knows: Callable[[Principal], bool]) -> None:
        """End those whose token is not one any more."""
        for session in self:
            if not knows(session.owner):
                self._forget(session)

    def close(self) -> None:
        """End the streams of all: the relay stops."""
        for session in self:
            session.end()
        self._of.clear()

    def _take_up(self, owner: Principal, header: bytes) -> LegacySession | None:
        if header in self._ended:
            return None
        now = self._clock()
        try:
            said = _decode_said(request_state.unseal(self._keys, _binding(owner), header.decode("latin-1"), now))
        except (InvalidStateError, *NO_JSON):
            return None
        return self._keep(LegacySession(header, owner, said, now))

    def _keep(self, session: LegacySession) -> LegacySession:
        owner = session.owner
        of_token = self._of.setdefault((owner.workspace_id, owner.token_id), OrderedDict())
        of_token[session.header] = session
        if len(of_token) > MAX_SESSIONS:
            oldest = next((one for one in of_token.values() if not one.busy), next(iter(of_token.values())))
            self._forget(oldest)
        return session

    def _forget(self, session: LegacySession) -> None:
        key = (session.owner.workspace_id, session.owner.token_id)
        of_token = self._of.get(key, OrderedDict())
        of_token.pop(session.header, None)
        if not of_token:
            self._of.pop(key, None)
        session.end()


def _binding(owner: Principal) -> Binding:
    return Binding(f"{owner.workspace_id}/{owner.token_id}", "initialize", "")
