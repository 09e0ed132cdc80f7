"""The relay's public door, a plain ASGI callable: `POST /ws/{slug}`.

`auth` decides from the headers who is served, before the body is read; `gateway.mcp.inbound` says what the body is.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Awaitable

from starlette.types import Message, Receive, Scope, Send

from gateway.mcp import batch, inbound, jsonrpc, subscriptions
from gateway.mcp.inbound import Headers
from gateway.mcp.revisions import Era
from gateway.relay.active_call import Call, HttpRequest
from gateway.relay.auth import RejectedError, authenticate
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.legacy_clients import LegacyClients
from gateway.relay.methods import Methods
from gateway.relay.rate_limit import RateLimitExceeded, RateLimits
from gateway.relay.relay_state import RelayState
from gateway.relay.responses import (
    INTERNAL,
    RATE_LIMIT_EXCEEDED,
    EventStream,
    rate_limited,
    send_empty,
    send_error,
    send_json,
)
from gateway.relay.subscriptions_listen import SubscriptionStreams
from gateway.relay.tool_call import ToolCalls

logger = logging.getLogger(__name__)


class Endpoint:
    """Serves MCP as `state` says. `state` is replaced by a reload, so each request reads it once."""

    def __init__(
        self,
        state: RelayState,
        recorder: HeartbeatWriter,
        tool_calls: ToolCalls,
        methods: Methods,
        streams: SubscriptionStreams,
        legacy: LegacyClients,
    ) -> None:
        self.state = state
        self._recorder = recorder
        self._tool_calls = tool_calls
        self._methods = methods
        self._streams = streams
        self._legacy = legacy
        self._limits = RateLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter_ns()
        state = self.state
        try:
            lines = scope["headers"]
            headers: dict[bytes, bytes] = dict(lines)
            view, principal = authenticate(state, scope, headers)
            http = HttpRequest(state, view, principal, headers, receive, send)
            if scope["method"] != "POST":
                await self._legacy.serve_get_or_delete(http, scope["method"])
                return
            waiting = time.perf_counter_ns()
            first = await receive()
            body = first.get("body", b"")
            if first.get("more_body", False) or not body or len(body) > state.max_bytes:
                body = await _read_body(first, receive, headers, state.max_bytes)
            began += time.perf_counter_ns() - waiting  # the time that a client takes to send is not the gateway's
            message = inbound.read(body, headers, lines)
            if isinstance(message, inbound.Request):
                await self._request(http, message, began, len(body))
            elif isinstance(message, inbound.Rejection) and batch.is_batch(body):
                await self._batch(http, body, message)
            else:
                await self._other(http, message)
        except RejectedError as rejected:
            self._recorder.count_rejection(rejected.reason)
            await send_error(send, rejected.status, str(rejected), headers=rejected.headers)
        except Exception:
            logger.exception("a request failed in the gateway")
            self._recorder.count_rejection("gateway_error")
            error = jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, INTERNAL)
            await send_json(send, 500, jsonrpc.error(None, error))

    def _request(self, http: HttpRequest, request: inbound.Request, began: int, size: int) -> Awaitable[None]:
        """Serve a request. This is not a coroutine itself, which spares every call a frame."""
        state, principal = http.state, http.principal
        timestamp_ns = time.time_ns()
        exceeded = None
        if principal.rate is not None:
            exceeded = self._limits.take(principal.rate, principal.workspace_id, principal.token_id)
        stream = EventStream(http.send, http.headers)
        received = (state, http.view, principal, http.headers, http.receive, http.send)
        call = Call(*received, request, stream, began, timestamp_ns, size)
        if request.era is Era.LEGACY:
            self._legacy.join(call)
        if request.method == "tools/call":
            if exceeded is not None or state.quota is None:
                return self._tool_calls.serve(call, exceeded)
            over_quota = state.quota.admit(http.view.slug, timestamp_ns)
            if over_quota is None:
                call.usage_counter = state.quota.counter
            return self._tool_calls.serve(call, over_quota)
        if exceeded is not None:
            return self._rate_limited(http, exceeded)
        if request.method == subscriptions.METHOD and request.era is Era.MODERN:
            return self._streams.serve(call)
        return self._methods.serve(call)

    async def _rate_limited(self, http: HttpRequest, exceeded: RateLimitExceeded) -> None:
        self._recorder.count_rejection("rate_limited")
        await rate_limited(http.send, exceeded)

    async def _other(
        self, http: HttpRequest, message: inbound.Notification | inbound.ClientResponse | inbound.Rejection
    ) -> None:
        match message:
            case inbound.Rejection():
                self._recorder.count_rejection("bad_request")
                error = jsonrpc.error_object(message.code, message.message, message.data)
                await send_json(http.send, message.status, jsonrpc.error(message.id, error))
                return
            case inbound.Notification():
                self._legacy.notified(http, message)
            case inbound.ClientResponse():
                self._legacy.responded(http, message)
        await send_empty(http.send, 202)

    # -- batches (specification 2025-03-26, basic/transports; JSON-RPC 2.0, section 6)

    async def _batch(self, http: HttpRequest, body: bytes, rejection: inbound.Rejection) -> None:
        """Serve the messages of a batch, each as if it had come alone, and send their responses in one body."""
        version = http.headers.get(b"mcp-protocol-version")
        session = self._legacy.session(http)
        spoken = version.decode("latin-1") if version is not None else None
        if version is None and session is not None:
            spoken = session.revision
        messages = batch.split(body, spoken)
        if isinstance(messages, inbound.Rejection):
            await self._other(http, messages if spoken in (None, batch.REVISION) else rejection)
            return
        # A response in a batch is plain JSON: there is no stream for notifications and the server's requests.
        http = dataclasses.replace(http, headers={**http.headers, b"accept": b"application/json"})
        joined = batch.join(await asyncio.gather(*(self._batched(http, message) for message in messages)))
        if joined is None:
            await send_empty(http.send, 202)
        else:
            await send_json(http.send, 200, joined)

    async def _batched(self, http: HttpRequest, body: bytes) -> bytes | None:
        """The response to one message of a batch; None if it gets none."""
        began = time.perf_counter_ns()
        response = b""

        async def capture(message: Message) -> None:
            nonlocal response
            response += message.get("body", b"")

        http = dataclasses.replace(http, send=capture)
        message = inbound.read(body, http.headers, list(http.headers.items()))
        if not isinstance(message, inbound.Request):
            await self._other(http, message)
            return response or None
        await self._request(http, message, began, len(body))
        if response.startswith(RATE_LIMIT_EXCEEDED):  # `rate_limited` sends an error of HTTP, not of JSON-RPC
            error = jsonrpc.error_object(429, "over the limit of requests: try again later")
            return jsonrpc.error(message.id, error)
        return response or None


async def _read_body(first: Message, receive: Receive, headers: Headers, max_bytes: int) -> bytes:
    """The whole body, of which `first` is the beginning.

    Raises:
        RejectedError: it is larger than `requests.max_bytes`, or the client disconnected.
    """
    message, body = first, bytearray(first.get("body", b""))
    declared = headers.get(b"content-length", b"")
    size = int(declared) if declared.isdigit() else 0
    while message.get("more_body", False) and max(size, len(body)) <= max_bytes:
        message = await receive()
        body += message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise RejectedError("disconnected", 400, "the client disconnected")
    if max(size, len(body)) > max_bytes:
        raise RejectedError("too_large", 413, f"the body may have at most {max_bytes} bytes")
    return bytes(body)
