"""What the relay knows of an upstream: an `UpstreamRequest` in, an `UpstreamResponse` or `UpstreamError` out."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

from mcp_types import CLIENT_CAPABILITIES_META_KEY, LOG_LEVEL_META_KEY, PROTOCOL_VERSION_META_KEY
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.calls import ErrorType
from gateway.errors import CallscopeError
from gateway.mcp import capabilities, jsonrpc, log_levels
from gateway.mcp.jsonrpc import Params
from gateway.mcp.revisions import Era

Notify = Callable[[bytes], Awaitable[None]]
"""Takes one JSON-RPC notification that belongs to the request, as bytes, its progress token the client's own."""
AskClient = Callable[[str, Raw], Awaitable["UpstreamResponse"]]
"""Takes a request from the upstream to its client: the method and the params as they came (`{}` if there are none).
Gives the client's response."""
OnChange = Callable[[str, Raw], None]
"""Takes a notification of the upstream that belongs to no request: its method and its params."""

CANCEL_REASON: Final = "the client does not wait any more"
_CLIENT_META_KEYS: Final = frozenset({CLIENT_CAPABILITIES_META_KEY, LOG_LEVEL_META_KEY})


class UpstreamError(CallscopeError):
    """No answer that is MCP came from an upstream."""

    def __init__(
        self, error_type: ErrorType, message: str, *, http_status: int | None = None, response: bytes | None = None
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.http_status = http_status
        self.response = response


class UpstreamTimings(Struct, frozen=True, kw_only=True):
    """How long things take with an upstream, in seconds."""

    handshake_s: float = 10.0
    """Over HTTP: the whole negotiation of the era and a session."""
    process_handshake_s: float = 60.0
    """Over stdio, from the start of the process; a package runner may have to download the server first."""
    probe_s: float = 10.0
    """Over stdio: how long a process may take for `server/discover` before it is also asked to `initialize`."""
    reprobe_after_s: float = 5.0
    """A server that refuses what it should accept is asked for its era again, but not more often than this."""
    ping_s: float = 2.0
    """The `ping` that finds out whether the server still knows a session."""
    idle_s: float = 600.0
    """A session or process of one token that nobody has used for so long is ended."""
    stream_opens_s: float = 1.0
    """How long a request waits for the stream of its new session: on it the server may send what the request needs."""
    acknowledge_s: float = 10.0
    """How long a server may take to acknowledge `subscriptions/listen`."""
    reconnect_s: float = 0.5
    """The first pause before a stream that ended soon is opened again; it doubles up to `reconnect_longest_s`."""
    reconnect_longest_s: float = 30.0
    stable_stream_s: float = 5.0
    """A stream that lived longer is opened again at once."""
    quiet_s: float = 0.1
    """A legacy server says on each of its streams that a list changed: within this time they are one change."""
    restart_s: float = 0.5
    """The first pause before a process that ended soon is started again; it doubles up to `restart_longest_s`."""
    restart_longest_s: float = 30.0
    stable_process_s: float = 10.0
    """A process that lived longer is started again at once."""
    close_s: float = 2.0
    """Ending all HTTP sessions; and each step of ending a process: its input ends, SIGTERM, SIGKILL (2025-11-25,
    basic/lifecycle, "Shutdown")."""


DEFAULT_TIMINGS: Final = UpstreamTimings()


class Client(Struct, frozen=True, eq=False):
    """What the client on whose behalf a request is sent can do, beyond waiting for the response."""

    capabilities: Raw
    """Its `ClientCapabilities`, as it declared them; only what `ask` can carry counts."""
    ask: AskClient
    log_level: str | None = None
    """The least severe log messages that it wants; None: none."""


class UpstreamRequest(Struct, eq=False):
    """One request to an upstream, and when each of its phases ended (`perf_counter_ns`; 0: it was not reached)."""

    method: str
    params: Mapping[str, Any]
    """With the upstream's own names; `_meta` in it is replaced by what `meta` becomes."""
    meta: Mapping[str, Raw] = {}
    """The client's `_meta`, as it came."""
    name: str | None = None
    """For `Mcp-Name`: the tool, the prompt or the URI."""
    traceparent: str | None = None
    tracestate: str | None = None
    notify: Notify | None = None
    repeatable: bool = False
    """Whether the upstream may get the request twice, when nobody knows what became of the first."""
    token_id: str | None = None
    """On whose behalf: a legacy server has a session for each; None: the gateway's own."""
    client: Client | None = None
    """None: the upstream can send it no requests; of a legacy upstream's log messages a modern client gets those that
    its `_meta` asks for."""
    param_lines: bytes = b""
    """The `Mcp-Param-*` header lines of a `tools/call` over HTTP, each with its CRLF."""
    acquired_ns: int = 0
    sent_ns: int = 0
    first_byte_ns: int = 0
    done_ns: int = 0
    http_status: int | None = None

    def reset_phases(self) -> None:
        """Forget the phases of the first attempt: the request is sent again."""
        self.acquired_ns = self.sent_ns = self.first_byte_ns = self.done_ns = 0
        self.http_status = None

    def meta_for(self, era: Era) -> Mapping[str, Raw]:
        """The client's `_meta` for an upstream of `era`: each modern request says what a legacy client said once.

        Source: specification 2026-07-28, basic/index "Per-request protocol fields".
        """
        if era is Era.LEGACY or PROTOCOL_VERSION_META_KEY in self.meta:
            return self.meta
        if self.client is None and _CLIENT_META_KEYS.isdisjoint(self.meta):
            return self.meta
        meta: Params = {name: value for name, value in self.meta.items() if name not in _CLIENT_META_KEYS}
        if self.client is not None:
            can = capabilities.for_upstream(self.client.capabilities)
            meta = log_levels.with_level({**meta, CLIENT_CAPABILITIES_META_KEY: can}, self.client.log_level)
        return meta

    @property
    def client_capabilities(self) -> Raw:
        """What `initialize` declares to a legacy server on behalf of the client."""
        if self.client is None:
            return jsonrpc.EMPTY_OBJECT
        return capabilities.for_upstream(self.client.capabilities)

    @property
    def log_level(self) -> str | None:
        """The least severe log messages that the client wants; None: it did not say."""
        if self.client is not None:
            return self.client.log_level
        try:
            return log_levels.level_of_request(dict(self.meta))
        except jsonrpc.InvalidParamsError:
            return None

    def wants_notification(self, method: str, params: Params) -> bool:
        """Whether a legacy server's notification goes on to the client.

        A modern client gets the log messages that its request asks for. For a legacy client of which nothing is known
        the server decides.
        """
        if method != log_levels.METHOD or (self.client is None and PROTOCOL_VERSION_META_KEY not in self.meta):
            return True
        return log_levels.passes(params, self.log_level)


class UpstreamResponse(Struct, frozen=True):
    """An upstream's JSON-RPC response: `result` or `error`, as it came."""

    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    size: int = 0
    """Bytes of the message."""
    era: Era | None = None
    """The era in which the request was sent, so also that of this response; None for a client's response."""

    @property
    def is_result(self) -> bool:
        return self.error is UNSET


class ServerSession:
    """What is known of one session with a server, over either transport."""

    __slots__ = ("_log_level", "declared", "era", "subscribed")

    def __init__(self, era: Era, declared: Raw | None = None) -> None:
        self.era = era
        self.declared = declared
        """The `ServerCapabilities` of its `server/discover` or `initialize` result."""
        self.subscribed: frozenset[str] = frozenset()
        """Resources that a legacy server was asked to report updates of."""
        self._log_level: str | None = None

    def raise_level(self, level: str | None) -> str | None:
        """The level to ask a legacy server for, so that it sends at least these messages; None: it does already."""
        if level is None or self.era is Era.MODERN or capabilities.read_server(self.declared).logging is None:
            return None
        levels = log_levels.LEVELS
        if self._log_level is not None and levels.index(self._log_level) <= levels.index(level):
            return None
        self._log_level = level
        return level


class Upstream(Protocol):
    """One server of one workspace, over either transport."""

    era: Era | None
    """Which era it speaks; None before the first contact."""
    declared: Raw | None
    """The `ServerCapabilities` that it declared; None before the first contact."""
    address: str | None
    """`host:port` over HTTP, None over stdio."""

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for its response.

        To cancel the coroutine is to cancel the request upstream; deadlines are the caller's.

        Raises:
            UpstreamError: `upstream_unreachable`, `upstream_http_error` or `upstream_protocol_error`.
        """

    def listen(self, changed: OnChange) -> None:
        """Report changes to `changed` until the upstream is closed; called at most once.

        These are `notifications/*/list_changed` and `notifications/resources/updated`.
        """

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        """Have just these resources' updates reported; done when the upstream has acknowledged it.

        Returns, for each resource that the upstream refuses, its reason. It is not asked for that one again while it
        stays among `uris`.

        Raises:
            UpstreamError: the upstream cannot be reached, or refuses all (`jsonrpc_error`): then the resources of
                before stay subscribed.
        """

    async def close(self) -> None:
        """End what is kept open for it; requests under way end as `upstream_unreachable`."""
