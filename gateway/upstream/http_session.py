"""What a negotiation over HTTP has settled: the era, and how each request to the server begins."""

from collections.abc import Callable

from msgspec import Raw

from gateway.mcp import jsonrpc, outbound
from gateway.mcp.revisions import Era
from gateway.upstream.base import ServerSession, UpstreamRequest
from gateway.upstream.server_requests import ServerRequests

MAX_CACHED_HEADS = 4096


class HttpSession(ServerSession):
    """The era and the head of every request. A modern server has one for all clients, and no state in it."""

    __slots__ = ("_heads", "_is_modern", "head")

    def __init__(self, era: Era, head: bytes, declared: Raw | None = None) -> None:
        super().__init__(era, declared)
        self._is_modern = era is Era.MODERN
        self.head = head
        self._heads: dict[tuple[str, str | None], bytes] = {}

    def head_of(self, method: str, name: str | None) -> bytes:
        """The head of a request by method and name; it is cached, as a catalog has few of them."""
        head = self._heads.get((method, name))
        if head is None:
            if len(self._heads) >= MAX_CACHED_HEADS:
                self._heads.clear()
            head = self._heads[method, name] = self.head + outbound.headers(self.era, method, name)
        return head

    def encode(self, request: UpstreamRequest, request_id: int) -> bytes:
        """A whole HTTP request."""
        traceparent, tracestate = request.traceparent, request.tracestate
        body = None
        if self._is_modern and request.method == "tools/call" and traceparent is not None and tracestate is None:
            body = outbound.call(request_id, request.params, request.meta, traceparent)
        if body is None:
            params = outbound.params(self.era, request.params, request.meta_for(self.era), traceparent, tracestate)
            body = jsonrpc.request(request_id, request.method, params)
        head = self.head_of(request.method, request.name)
        if request.param_lines and self._is_modern:
            head += request.param_lines
        trace = outbound.trace_headers(traceparent, tracestate)
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, trace, len(body), body)

    def move(self, path: bytes) -> None:
        """From now on the server is at another path of the same origin."""
        self.head = with_path(self.head, path)
        self._heads.clear()


class LegacyHttpSession(HttpSession):
    """A session with a legacy server, on behalf of one token, with the capabilities of its clients."""

    __slots__ = ("_no_client", "pending", "pinned", "session_id")

    def __init__(
        self, head: bytes, session_id: bytes | None, declared: Raw | None, respond: Callable[[HttpSession, bytes], None]
    ) -> None:
        super().__init__(Era.LEGACY, head, declared)
        self.session_id = session_id
        self.pending: dict[UpstreamRequest, ServerRequests] = {}
        """The requests under way, with what the server asks of their clients."""
        self.pinned = False
        """Whether the changes of the server are reported in it, so that it is never idle."""
        self._no_client = ServerRequests(None, lambda body: respond(self, body))

    @property
    def is_idle(self) -> bool:
        return not self.pending and not self.pinned

    def server_requests(self, request: UpstreamRequest | None = None) -> ServerRequests:
        """Who answers a request of the server: the client of `request`, or the only client that there is.

        On the session's own stream the server does not say which of our requests its own belongs to. With two clients
        it might be for either: then it is refused.
        """
        if request is not None:
            return self.pending.get(request, self._no_client)
        candidates = [requests for request, requests in self.pending.items() if request.client is not None]
        return candidates[0] if len(candidates) == 1 else self._no_client

    def only_request(self) -> UpstreamRequest | None:
        """The one request under way; None if there are more, or none."""
        return next(iter(self.pending)) if len(self.pending) == 1 else None

    def begin(self, request: UpstreamRequest, respond: Callable[[bytes], None]) -> None:
        """Take the requests that the server sends meanwhile to the client of `request`."""
        client = request.client
        self.pending[request] = ServerRequests(client, respond) if client is not None else self._no_client

    def finish(self, request: UpstreamRequest) -> None:
        self.pending.pop(request).close()


def with_path(message: bytes, path: bytes) -> bytes:
    """The same HTTP request for another path."""
    verb, _, rest = message.partition(b" ")
    return verb + b" " + path + rest[rest.index(b" HTTP/1.1\r\n") :]
