"""Sessions of legacy clients (docs/adr/0004-sessions-in-their-ids.md).

Their law: the session's id carries what `initialize` said, signed. So a relay that was restarted, or another relay of
the same data folder, resumes a session that it has never seen, and one that it dropped. What is kept in memory beside
the id is bounded: by sessions of a token, by idle time, by messages that wait for the stream.

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
from gateway.mcp import capabilities, inbound, jsonrpc, request_state, subscriptions
from gateway.mcp.jsonrpc import DECODE_ERRORS, EMPTY_OBJECT, Id, Params, Response
from gateway.mcp.request_state import Binding, InvalidRequestStateError
from gateway.mcp.subscriptions import SubscriptionFilter
from gateway.relay.notification_stream import NotificationQueue
from gateway.relay.registry import Principal

HEADER: Final = b"mcp-session-id"
LIFETIME_S: Final = 30 * 86400.0
"""From `initialize` on. Then the client has to initialize again."""
IDLE_S: Final = 1800.0
"""A session that is unused for so long is dropped from memory, and resumed when its id comes again."""
MAX_SESSIONS: Final = 500
"""In memory, for each token."""
MAX_DELETED: Final = 10_000
"""Ids of sessions that their clients deleted, so that they are not resumed."""
DEFAULT_LOG_LEVEL: Final = "info"
"""For a client that has not chosen one: the specification leaves it to the server."""
_MAX_CAPABILITIES_BYTES: Final = 2048
_NONCE_BYTES: Final = 16
_ALL_LISTS: Final = SubscriptionFilter(tools_list_changed=True, prompts_list_changed=True, resources_list_changed=True)


class _Initialized(Struct, frozen=True, array_like=True):
    """What a session's id carries, beside whose it is."""

    nonce: str
    revision: str
    capabilities: Raw
    client_info: Raw


_decode_initialized: Final = msgspec.json.Decoder(_Initialized).decode


class LegacySession:
    """One client, from its `initialize` on."""

    def __init__(self, header: bytes, owner: Principal, initialized: _Initialized, now: float) -> None:
        self.header = header
        """`Mcp-Session-Id`, as the client sends it."""
        self.id = initialized.nonce
        """In records. Who knows only this cannot use the session."""
        self.owner = owner
        self.revision = initialized.revision
        self.capabilities = initialized.capabilities
        self.client_info = initialized.client_info
        self.client = inbound.client_of(initialized.client_info)
        self.log_level = DEFAULT_LOG_LEVEL
        self.members = "," + lines.members(session_id=initialized.nonce)
        """For a call's lines in the journal."""
        self.used_at = now
        self.queue = NotificationQueue(_ALL_LISTS, subscriptions.without_subscription_id)
        """What waits for the stream that the client opens by GET."""
        self.stream: object | None = None
        """The newest of these streams. Only this one sends."""
        self._subscribed: dict[str, None] = {}
        self._request_ids = itertools.count(1)
        self._responses: dict[Id, asyncio.Future[Response]] = {}
        self._at_end: list[Callable[[], None]] = []

    @property
    def busy(self) -> bool:
        """Whether to drop it would do harm: its client has a stream open, or owes a response."""
        return self.stream is not None or bool(self._responses)

    # -- requests to the client

    def open_request(self) -> tuple[int, asyncio.Future[Response]]:
        """A new id for a request to the client, and its response. The caller closes it."""
        request_id = next(self._request_ids)
        response = self._responses[request_id] = asyncio.get_running_loop().create_future()
        return request_id, response

    def close_request(self, request_id: int) -> None:
        self._responses.pop(request_id, None)

    def respond(self, request_id: Id, response: Response) -> None:
        """Take the client's response. One to a request that is not open is ignored."""
        waiting = self._responses.get(request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(response)

    # -- subscriptions

    @property
    def subscribed_uris(self) -> frozenset[str]:
        return frozenset(self._subscribed)

    def subscribe(self, uri: str) -> None:
        self._subscribed[uri] = None
        self._set_filter()

    def unsubscribe(self, uri: str) -> None:
        self._subscribed.pop(uri, None)
        self._set_filter()

    def _set_filter(self) -> None:
        uris = tuple(self._subscribed) or None
        self.queue.filter = msgspec.structs.replace(_ALL_LISTS, resource_subscriptions=uris)

    # -- its end

    def at_end(self, callback: Callable[[], None]) -> None:
        """Call this when the session has ended or is dropped from memory."""
        self._at_end.append(callback)

    def end(self) -> None:
        self.stream = None
        for response in self._responses.values():
            response.cancel()
        self._responses.clear()
        self.queue.wake()
        callbacks, self._at_end = self._at_end, []
        for callback in callbacks:
            callback()


class Sessions:
    """The sessions of all tokens. `clock` is the time in seconds since the Unix epoch."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._keys = (key,)
        self._clock = clock
        self._by_token: dict[tuple[str, str], OrderedDict[bytes, LegacySession]] = {}
        """The least recently used one of a token first."""
        self._deleted: OrderedDict[bytes, None] = OrderedDict()

    def __iter__(self) -> Iterator[LegacySession]:
        return iter([session for of_token in self._by_token.values() for session in of_token.values()])

    def open(self, owner: Principal, params: Params, revision: str) -> LegacySession:
        """Begin a session from the params of `initialize`."""
        now = self._clock()
        declared = capabilities.for_upstream(params.get("capabilities"))
        client = inbound.client_of(params.get("clientInfo", EMPTY_OBJECT))
        initialized = _Initialized(
            secrets.token_urlsafe(_NONCE_BYTES),
            revision,
            declared if len(bytes(declared)) <= _MAX_CAPABILITIES_BYTES else EMPTY_OBJECT,
            jsonrpc.raw({name: value for name, value in msgspec.structs.asdict(client).items() if value is not None}),
        )
        header = request_state.seal(self._keys, _binding(owner), initialized, now + LIFETIME_S).encode()
        return self._remember(LegacySession(header, owner, initialized, now))

    def find(self, owner: Principal, header: bytes) -> LegacySession | None:
        """The session with this id. None if it was deleted, has expired, or is of another token."""
        of_token = self._by_token.get((owner.workspace_id, owner.token_id))
        session = of_token.get(header) if of_token is not None else None
        if session is None or of_token is None:
            return self._resume(owner, header)
        of_token.move_to_end(header)
        session.used_at = self._clock()
        return session

    def delete(self, session: LegacySession) -> None:
        """The client ends the session: its id is not valid any more."""
        self._deleted[session.header] = None
        if len(self._deleted) > MAX_DELETED:
            self._deleted.popitem(last=False)
        self._drop(session)

    def sweep(self) -> None:
        """Drop idle sessions, and those whose token has expired."""
        now = self._clock()
        for session in self:
            if session.owner.expires_at is not None and session.owner.expires_at <= now:
                self._drop(session)
            elif session.busy:
                session.used_at = now
            elif session.used_at <= now - IDLE_S:
                self._drop(session)

    def keep(self, is_valid: Callable[[Principal], bool]) -> None:
        """Drop those whose token was revoked."""
        for session in self:
            if not is_valid(session.owner):
                self._drop(session)

    def close(self) -> None:
        """End the streams of all sessions: the relay stops."""
        for session in self:
            session.end()
        self._by_token.clear()

    def _resume(self, owner: Principal, header: bytes) -> LegacySession | None:
        if header in self._deleted:
            return None
        now = self._clock()
        try:
            content = request_state.unseal(self._keys, _binding(owner), header.decode("latin-1"), now)
            return self._remember(LegacySession(header, owner, _decode_initialized(content), now))
        except (InvalidRequestStateError, *DECODE_ERRORS):
            return None

    def _remember(self, session: LegacySession) -> LegacySession:
        of_token = self._by_token.setdefault(session.owner[:2], OrderedDict())
        of_token[session.header] = session
        if len(of_token) > MAX_SESSIONS:
            oldest = next((one for one in of_token.values() if not one.busy), next(iter(of_token.values())))
            self._drop(oldest)
        return session

    def _drop(self, session: LegacySession) -> None:
        of_token = self._by_token.get(session.owner[:2], OrderedDict())
        of_token.pop(session.header, None)
        if not of_token:
            self._by_token.pop(session.owner[:2], None)
        session.end()


def _binding(owner: Principal) -> Binding:
    return Binding(f"{owner.workspace_id}/{owner.token_id}", "initialize", "")
