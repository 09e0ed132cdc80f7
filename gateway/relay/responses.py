"""What the relay sends back, as ASGI messages."""

import time
from typing import Final

from starlette.types import Send

from gateway.mcp import jsonrpc, sse
from gateway.relay.limits import Exceeded

JSON: Final = (b"content-type", b"application/json")
_SSE: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

Headers = list[tuple[bytes, bytes]]


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


async def rate_limited(send: Send, exceeded: Exceeded) -> None:
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


class EventStream:
    """An answer as Server-Sent Events, begun with its first event."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def event(self, data: bytes) -> None:
        """Send one JSON-RPC message on its way to the client."""
        if not self.begun:
            self.begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _SSE})
        await self._send({"type": "http.response.body", "body": sse.encode(data), "more_body": True})

    async def end(self, data: bytes) -> None:
        """Send the last message, the response, and close the stream."""
        await self._send({"type": "http.response.body", "body": sse.encode(data)})
