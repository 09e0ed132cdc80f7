"""What the relay sends back, as ASGI messages."""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Self

from mcp_types.jsonrpc import MISSING_REQUIRED_CLIENT_CAPABILITY
from msgspec import Raw
from starlette.types import Send

from gateway.calls import ErrorType
from gateway.errors import CallscopeError
from gateway.mcp import jsonrpc, sse
from gateway.mcp.era_bridge_errors import RESOURCE_NOT_FOUND
from gateway.mcp.jsonrpc import Id
from gateway.mcp.revisions import Era
from gateway.relay.rate_limit import RateLimitExceeded

INTERNAL: Final = "internal error: the gateway's log has the reason"
_CODES: Final = frozenset(
    {
        jsonrpc.PARSE_ERROR,
        jsonrpc.INVALID_REQUEST,
        jsonrpc.METHOD_NOT_FOUND,
        jsonrpc.INVALID_PARAMS,
        jsonrpc.INTERNAL_ERROR,
        RESOURCE_NOT_FOUND,
        MISSING_REQUIRED_CLIENT_CAPABILITY,
    }
)
"""The error codes of MCP. Any other is a server's own, and must not become the value of a label."""
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
        return str(self.code) if self.code in _CODES else ErrorType.JSONRPC_ERROR.value

    def response(self, request_id: Id | None) -> bytes:
        return jsonrpc.error(request_id, jsonrpc.error_object(self.code, str(self), self.data))


async def send_json(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    """A whole answer."""
    lines = [JSON, (b"content-length", b"%d" % len(body)), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})


async def send_empty(send: Send, status: int, headers: Headers | None = None) -> None:
    """An answer without a body."""
    lines = [(b"content-length", b"0"), *(headers or ())]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": b""})


async def send_error(send: Send, status: int, message: str, headers: Headers | None = None) -> None:
    """A refusal before any tool is known: a JSON-RPC error whose code is the HTTP status, so that a client shows it.

    Codes outside -32768..-32000 are the application's own (JSON-RPC 2.0, section 5.1).
    """
    await send_json(send, status, jsonrpc.error(None, jsonrpc.error_object(status, message)), headers)


async def rate_limited(send: Send, exceeded: RateLimitExceeded) -> None:
    """HTTP 429, in the form that the gateway's users know."""
    message = f"more than {exceeded.limit} requests in the window: try again in {exceeded.reset_s} s"
    headers = [
        (b"retry-after", b"%d" % exceeded.reset_s),
        (b"x-ratelimit-limit", b"%d" % exceeded.limit),
        (b"x-ratelimit-remaining", b"0"),
        (b"x-ratelimit-reset", b"%d" % (time.time() + exceeded.reset_s)),
    ]
    body = jsonrpc.encode({"error": {"code": "RATE_LIMIT_EXCEEDED", "message": message}})
    await send_json(send, 429, body, headers)


async def over_quota(send: Send, body: bytes, retry_after_s: int) -> None:
    """HTTP 429 with a JSON-RPC error, for a call that the workspace's plan does not allow."""
    await send_json(send, 429, body, [(b"retry-after", b"%d" % retry_after_s)])


class EventStream:
    """An answer as Server-Sent Events, begun with its first event."""

    def __init__(self, send: Send, headers: Mapping[bytes, bytes]) -> None:
        self._send = send
        self._headers = headers
        self.begun = False

    @property
    def possible(self) -> bool:
        """Whether the client takes events at all."""
        return accepts(self._headers.get(b"accept")).events

    async def event(self, data: bytes) -> None:
        """Send one JSON-RPC message on its way to the client; a client that takes no events does not get it."""
        if not self.begun and not await self.begin():
            return
        await self._send({"type": "http.response.body", "body": sse.encode(data), "more_body": True})

    async def begin(self) -> bool:
        """Send the head, if the client takes events; it leaves with the first event, or the end."""
        self.begun = self.possible
        if self.begun:
            await self._send({"type": "http.response.start", "status": 200, "headers": SSE_HEADERS})
        return self.begun

    async def end(self, data: bytes) -> None:
        """Send the last message, the response, and close the stream."""
        await self._send({"type": "http.response.body", "body": sse.encode(data)})

    async def end_without(self) -> None:
        """Close the stream without a response: its client has said that it waits for none."""
        if self.begun or await self.begin():
            await self._send({"type": "http.response.body", "body": b""})
        else:
            await send_empty(self._send, 202)


class Accepts(NamedTuple):
    """What a client can take, by its `Accept`."""

    json: bool
    events: bool


@lru_cache(maxsize=256)
def accepts(header: bytes | None) -> Accepts:
    """What an `Accept` allows (RFC 9110, section 12.5.1); without one, everything is allowed."""
    if header is None or not header.strip():
        return Accepts(json=True, events=True)
    ranges = {_media_range(part) for part in header.lower().split(b",")}
    every = b"*/*" in ranges
    return Accepts(
        json=every or not ranges.isdisjoint((b"application/json", b"application/*")),
        events=every or not ranges.isdisjoint((b"text/event-stream", b"text/*")),
    )


def _media_range(part: bytes) -> bytes:
    """The type of one part of an `Accept`; nothing if it is refused, by a weight of 0."""
    name, *parameters = (piece.strip() for piece in part.split(b";"))
    refused = any(one.startswith(b"q=") and not one[2:].strip(b"0.") for one in parameters)
    return b"" if refused else name
