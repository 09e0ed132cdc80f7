"""What the relay sends back, as ASGI messages."""

import time
from collections.abc import Mapping
from typing import Any, Final, Self

from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS
from msgspec import Raw
from starlette.types import Send

from gateway.calls import ErrorType
from gateway.errors import CallscopeError
from gateway.mcp import jsonrpc, sse
from gateway.mcp.era_bridge import RESOURCE_NOT_FOUND
from gateway.mcp.jsonrpc import Id
from gateway.mcp.revisions import Era
from gateway.media_types import accepts
from gateway.relay.rate_limit import RateLimitExceeded

NO_CONTENT: Final = 204
INTERNAL: Final = "internal error: the gateway's log has the reason"
_PROTOCOL_CODES: Final = frozenset({*ERROR_CODE_HTTP_STATUS, jsonrpc.INTERNAL_ERROR, RESOURCE_NOT_FOUND})
"""Any other error code is a server's own, and must not become the value of a label."""
RATE_LIMIT_EXCEEDED: Final = b'{"error":{"code":"RATE_LIMIT_EXCEEDED"'
"""How the body of `rate_limited` begins."""
JSON: Final = (b"content-type", b"application/json")
SSE_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

Headers = list[tuple[bytes, bytes]]


class JsonRpcError(CallscopeError):
    """Ends a request with a JSON-RPC error for its client."""

    def __init__(self, code: int, message: str, data: Any = None, era: Era | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data
        self.era = era
        """Of the server that sent the error; None: the gateway itself did."""

    @classmethod
    def of(cls, error: Raw, era: Era | None = None) -> Self:
        """A server's error object."""
        decoded = jsonrpc.decode_error(error)
        return cls(decoded.code, decoded.message, jsonrpc.decode_params(error).get("data"), era)

    @property
    def error_type(self) -> str:
        """The error as a label's value, of which there are few."""
        return str(self.code) if self.code in _PROTOCOL_CODES else ErrorType.JSONRPC_ERROR.value

    def response(self, request_id: Id | None) -> bytes:
        return jsonrpc.error(request_id, jsonrpc.error_object(self.code, str(self), self.data))


async def send_json(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    lines = [JSON, (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def send_empty(send: Send, status: int) -> None:
    headers = [] if status == NO_CONTENT else [(b"content-length", b"0")]  # RFC 9110, section 8.6
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def send_error(send: Send, status: int, message: str, headers: Headers | None = None) -> None:
    """A rejected HTTP request. Its JSON-RPC error has the HTTP status as code, so that a client shows the message.

    Codes outside -32768..-32000 are the application's own (JSON-RPC 2.0, section 5.1).
    """
    await send_json(send, status, jsonrpc.error(None, jsonrpc.error_object(status, message)), headers)


async def rate_limited(send: Send, exceeded: RateLimitExceeded) -> None:
    """HTTP 429, in the form that users of API gateways know."""
    message = f"more than {exceeded.limit} requests in the window: try again in {exceeded.reset_s} s"
    headers = [
        (b"retry-after", b"%d" % exceeded.reset_s),
        (b"x-ratelimit-limit", b"%d" % exceeded.limit),
        (b"x-ratelimit-remaining", b"0"),
        (b"x-ratelimit-reset", b"%d" % (time.time() + exceeded.reset_s)),
    ]
    body = jsonrpc.encode({"error": {"code": "RATE_LIMIT_EXCEEDED", "message": message}})
    await send_json(send, 429, body, headers)


class EventStream:
    """The response to one request as Server-Sent Events; it begins with its first event."""

    __slots__ = ("_headers", "_send", "begun")

    def __init__(self, send: Send, headers: Mapping[bytes, bytes]) -> None:
        self._send = send
        self._headers = headers
        self.begun = False

    @property
    def possible(self) -> bool:
        """Whether the client accepts an event stream."""
        return accepts(self._headers.get(b"accept", b"").decode("latin-1"), "text/event-stream")

    async def event(self, data: bytes) -> None:
        """Send a JSON-RPC message before the response. A client that accepts no event stream does not get it."""
        if await self._begin():
            await self._send({"type": "http.response.body", "body": sse.encode(data), "more_body": True})

    async def _begin(self) -> bool:
        if not self.begun and self.possible:
            self.begun = True  # before the await: two messages may come at once
            await self._send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        return self.begun

    async def end(self, data: bytes) -> None:
        """Send the response and close the stream."""
        await self._send({"type": "http.response.body", "body": sse.encode(data)})

    async def end_without_response(self) -> None:
        """Close the stream of a client that has cancelled its request."""
        if await self._begin():
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await send_empty(self._send, 202)
