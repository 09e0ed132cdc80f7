"""What a negotiation over HTTP settled: the era, and how each request to the server begins."""

from collections.abc import Callable
from typing import Final

from msgspec import Raw

from gateway.mcp import capabilities, jsonrpc, outbound
from gateway.mcp.jsonrpc import EMPTY_OBJECT, Params
from gateway.mcp.log_levels import LEVELS
from gateway.mcp.revisions import Era
from gateway.upstream import request_meta
from gateway.upstream.base import UpstreamRequest
from gateway.upstream.server_requests import ServerRequests

_MAX_HEADS: Final = 4096


class HttpSession:
    """The era and the head of every request; a modern server has one for all, and keeps no state in it."""

    __slots__ = ("_heads", "_is_modern", "declared", "era", "head")

    def __init__(self, era: Era, head: bytes, declared: Raw | None = None) -> None:
        self.era = era
        self._is_modern = era is Era.MODERN
        self.head = head
        self.declared = declared
        """The `ServerCapabilities` of its `server/discover` or `initialize` result."""
        self._heads: dict[tuple[str, str | None], bytes] = {}

    def head_of(self, method: str, name: str | None) -> bytes:
        """The head of a request by method and name; it is kept, as a catalog has few of them."""
        head = self._heads.get((method, name))
        if head is None:
            if len(self._heads) >= _MAX_HEADS:
                self._heads.clear()
            head = self._heads[method, name] = self.head + outbound.headers(self.era, method, name)
        return head

    def message(self, request: UpstreamRequest, request_id: int) -> bytes:
        """A whole HTTP request."""
        traceparent, tracestate = request.traceparent, request.tracestate
        body = None
        if self._is_modern and request.method == "tools/call" and traceparent is not None and tracestate is None:
            body = outbound.call(request_id, request.params, request.meta, traceparent)
        if body is None:
            meta = request_meta.meta(self.era, request)
            params = outbound.params(self.era, request.params, meta, traceparent, tracestate)
            body = jsonrpc.request(request_id, request.method, params)
        head = self.head_of(request.method, request.name)
        if request.param_lines and self._is_modern:
            head += request.param_lines
        trace = outbound.trace_headers(traceparent, tracestate)
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, trace, len(body), body)

    def move(self, path: bytes) -> None:
        """From now on the server is at another path of the same origin."""
        self.head = moved(self.head, path)
        self._heads.clear()


class LegacyHttpSession(HttpSession):
    """One conversation with a legacy server, on behalf of one token, with what its clients can be asked."""

    __slots__ = ("_log_level", "nobody", "pending", "session_id", "subscribed", "used_at")

    def __init__(
        self, head: bytes, session_id: bytes | None, declared: Raw | None, answer: Callable[[HttpSession, bytes], None]
    ) -> None:
        super().__init__(Era.LEGACY, head, declared)
        self.session_id = session_id
        self.pending: dict[UpstreamRequest, ServerRequests] = {}
        """The requests under way whose clients can be asked, or want what belongs to no request."""
        self.nobody = ServerRequests(None, lambda body: answer(self, body))
        self.subscribed: frozenset[str] = frozenset()
        self.used_at = 0.0
        self._log_level: str | None = None

    def asked(self, request: UpstreamRequest | None = None) -> ServerRequests:
        """Who answers a question: the request's client, or, of none in particular, the only one that there is."""
        if request is not None:
            return self.pending.get(request, self.nobody)
        able = [one for request, one in self.pending.items() if request.client is not None]
        return able[0] if len(able) == 1 else self.nobody

    def only_request(self) -> UpstreamRequest | None:
        """The one request under way; None if there are more, or none."""
        return next(iter(self.pending)) if len(self.pending) == 1 else None

    def raise_level(self, level: str | None) -> str | None:
        """The level to ask the server for, so that it sends at least these messages; None: it does already."""
        if level is None or capabilities.read_server(self.declared).logging is None:
            return None
        if self._log_level is not None and LEVELS.index(self._log_level) <= LEVELS.index(level):
            return None
        self._log_level = level
        return level


def moved(message: bytes, path: bytes) -> bytes:
    """The same request to another path."""
    verb, _, rest = message.partition(b" ")
    return verb + b" " + path + rest[rest.index(b" HTTP/1.1\r\n") :]


def declared_in(result: Raw) -> Raw:
    """The `capabilities` of a `server/discover` or `initialize` result; `{}` if it has none."""
    try:
        members: Params = jsonrpc.decode_params(result)
    except jsonrpc.NO_JSON:
        return EMPTY_OBJECT
    return members.get("capabilities", EMPTY_OBJECT)
