"""What the relay knows of an upstream: an `UpstreamRequest` in, an `UpstreamResponse` or `UpstreamError` out.

Cancelling the coroutine cancels the request upstream; deadlines are the caller's.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.calls import ErrorType
from gateway.errors import CallscopeError
from gateway.mcp.revisions import Era

Notify = Callable[[bytes], Awaitable[None]]
"""Takes one JSON-RPC notification that belongs to the request, as bytes, its progress token the client's own."""


Ask = Callable[[str, Raw], Awaitable["UpstreamResponse"]]
"""Takes a request of the upstream's to its client: the method and its params as they came (`{}` if there are none);
gives the client's answer."""
Changed = Callable[[str, Raw], None]
"""Takes a notification of the upstream's that belongs to no request: its method and its params."""


class UpstreamError(CallscopeError):
    """No answer that is MCP came from an upstream."""

    def __init__(
        self, error_type: ErrorType, message: str, *, http_status: int | None = None, response: bytes | None = None
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.http_status = http_status
        self.response = response


class Client:
    """What the client on whose behalf a request is sent can do, beyond waiting for the answer."""

    __slots__ = ("ask", "capabilities", "log_level")

    def __init__(self, capabilities: Raw, ask: Ask, log_level: str | None = None) -> None:
        self.capabilities = capabilities
        """Its `ClientCapabilities`, as it declared them; only what `ask` can carry counts."""
        self.ask = ask
        self.log_level = log_level
        """The least severe log messages that it wants; None: none."""


class UpstreamRequest:
    """One request to an upstream, and when each of its phases ended (`perf_counter_ns`; 0: it was not reached)."""

    __slots__ = (
        "acquired_ns",
        "client",
        "done_ns",
        "first_byte_ns",
        "http_status",
        "meta",
        "method",
        "name",
        "notify",
        "param_lines",
        "params",
        "repeatable",
        "sent_ns",
        "token_id",
        "traceparent",
        "tracestate",
    )

    def __init__(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        meta: Mapping[str, Raw] | None = None,
        name: str | None = None,
        traceparent: str | None = None,
        tracestate: str | None = None,
        notify: Notify | None = None,
        repeatable: bool = False,
        token_id: str | None = None,
        client: Client | None = None,
        param_lines: bytes = b"",
    ) -> None:
        self.method = method
        self.params = params
        """With the upstream's own names; `_meta` in it is replaced by what `meta` becomes."""
        self.meta = meta or {}
        """The client's `_meta`, as it came."""
        self.name = name
        """What `Mcp-Name` says: the tool, the prompt or the URI."""
        self.traceparent = traceparent
        self.tracestate = tracestate
        self.notify = notify
        self.repeatable = repeatable
        """Whether the upstream may be asked again when a kept connection broke before an answer."""
        self.token_id = token_id
        """On whose behalf: a legacy server has a session for each; None: the gateway's own."""
        self.client = client
        """None: the upstream can ask nothing; of a legacy one's log messages a modern client gets those that its
        `_meta` asks for."""
        self.param_lines = param_lines
        """The `Mcp-Param-*` header lines of a `tools/call` over HTTP, each with its CRLF."""
        self.acquired_ns = self.sent_ns = self.first_byte_ns = self.done_ns = 0
        self.http_status: int | None = None

    def reset_phases(self) -> None:
        """Forget the phases of the first attempt: the request is sent again."""
        self.acquired_ns = self.sent_ns = self.first_byte_ns = self.done_ns = 0
        self.http_status = None


class UpstreamResponse(Struct, frozen=True):
    """An upstream's JSON-RPC response: `result` or `error`, as it came."""

    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET
    size: int = 0
    """Bytes of the message."""
    era: Era | None = None
    """The era by which the request was spoken, so also the era of this response; None for an input response."""

    @property
    def is_result(self) -> bool:
        """Whether the upstream did what it was asked."""
        return self.error is UNSET


class Upstream(Protocol):
    """One server of one workspace, whatever its transport."""

    @property
    def era(self) -> Era | None:
        """Which era it speaks; None before the first contact."""

    @property
    def address(self) -> str | None:
        """`host:port` over HTTP, None over stdio."""

    @property
    def declared(self) -> Raw | None:
        """The `ServerCapabilities` that it declared; None before the first contact."""

    async def request(self, request: UpstreamRequest) -> UpstreamResponse:
        """Send a request and wait for its answer.

        Raises:
            UpstreamError: `upstream_unreachable`, `upstream_http_error` or `upstream_protocol_error`.
        """

    def listen(self, changed: Changed) -> Callable[[], None]:
        """Hear of changes, until the function that is given back is called.

        Of `notifications/*/list_changed` and `notifications/resources/updated`. The first listener opens the
        upstream's stream, the last one closes it.
        """

    async def subscribe(self, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
        """Ask for updates of just these resources; it is done when the upstream has acknowledged them.

        With listeners, the stream on which changes come is open then, if these are none as well. Gives why the
        upstream does not follow those that it does not: they are not asked for again while they stay among `uris`.

        Raises:
            UpstreamError: the upstream cannot be reached, or refuses all (`jsonrpc_error`): then what was asked
                before stands.
        """

    async def close(self) -> None:
        """End what is kept open for it; requests under way end as `upstream_unreachable`."""
