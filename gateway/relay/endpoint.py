"""The relay's one public door, a plain ASGI callable: `POST /ws/{slug}`.

Who may come in is decided in `auth`, before the body is read; what the body is, in `gateway.mcp.inbound`.
"""

import functools
import logging
import time
from collections.abc import Awaitable

from starlette.types import Message, Receive, Scope, Send

from gateway.calls import UNKNOWN, ErrorType, Operation
from gateway.mcp import batch, inbound, jsonrpc, subscriptions
from gateway.mcp.inbound import Headers
from gateway.mcp.revisions import Era
from gateway.relay import methods
from gateway.relay.active_call import Call
from gateway.relay.answering import INTERNAL, OPERATION_S, Methods
from gateway.relay.auth import RejectedError, authenticate
from gateway.relay.batch_requests import serve_batch
from gateway.relay.deadlines import CancelScopes
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.legacy_clients import LegacyClients
from gateway.relay.methods import Refusal
from gateway.relay.quota import Quota, QuotaExceeded
from gateway.relay.rate_limit import RateLimitExceeded, RateLimits
from gateway.relay.registry import Principal, WorkspaceView
from gateway.relay.relay_state import RelayState
from gateway.relay.responses import EventStream, rate_limited, send_empty, send_error, send_json
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
        legacy: LegacyClients,
        cancel_scopes: CancelScopes,
        listening: SubscriptionStreams,
    ) -> None:
        self.state = state
        self.tool_calls = tool_calls
        self.methods = methods
        self.legacy = legacy
        self._recorder = recorder
        self._cancel_scopes = cancel_scopes
        self._limits = RateLimits()
        self._listening = listening

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        began = time.perf_counter_ns()
        state = self.state
        try:
            lines = scope["headers"]
            headers: dict[bytes, bytes] = dict(lines)
            view, principal = authenticate(state, scope, headers)
            if scope["method"] != "POST":
                await self.legacy.without_body(state, scope["method"], principal, headers, receive, send)
                return
            waiting = time.perf_counter_ns()
            first = await receive()
            body = first.get("body", b"")
            if first.get("more_body", False) or not body or len(body) > state.max_bytes:
                body = await _read_body(first, receive, headers, state.max_bytes)
            began += time.perf_counter_ns() - waiting  # how long a client takes to send is not the gateway's time
            message = inbound.read(body, headers, lines)
            if isinstance(message, inbound.Request):
                await self._request(state, view, principal, message, headers, began, len(body), receive, send)
            elif isinstance(message, inbound.Rejection) and batch.is_batch(body):
                await self._batch(state, view, principal, body, headers, message, receive, send)
            else:
                await self._other(state, principal, headers, message, send)
        except RejectedError as refused:
            self._recorder.reject(refused.reason)
            await send_error(send, refused.status, str(refused), headers=refused.headers)
        except Exception:
            logger.exception("a request failed in the gateway")
            self._recorder.reject("gateway_error")
            error = jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, INTERNAL)
            await send_json(send, 500, jsonrpc.error(None, error))

    def _request(
        self,
        state: RelayState,
        view: WorkspaceView,
        principal: Principal,
        request: inbound.Request,
        headers: Headers,
        began: int,
        size: int,
        receive: Receive,
        send: Send,
    ) -> Awaitable[None]:
        """Serve a request, counted; not a coroutine of its own, as it stands on the way of every call."""
        timestamp_ns = time.time_ns()
        exceeded = None
        if principal.rate is not None:
            exceeded = self._limits.take(principal.rate, principal.workspace_id, principal.token_id)
        call = Call(state, view, principal, request, headers, began, timestamp_ns, size)
        if request.era is Era.LEGACY:
            self.legacy.join(call)
        if request.method == "tools/call":
            if exceeded is None and state.quota is not None:
                return self.tool_calls.serve(call, receive, send, _admit(call, state.quota))
            return self.tool_calls.serve(call, receive, send, exceeded)
        if exceeded is not None:
            return self._too_many(exceeded, send)
        if request.method == subscriptions.METHOD and request.era is Era.MODERN:
            return self._listening.serve(call, receive, send)
        return self._operation(call, receive, send)

    async def _too_many(self, exceeded: RateLimitExceeded, send: Send) -> None:
        self._recorder.reject("rate_limited")
        await rate_limited(send, exceeded)

    async def _other(
        self,
        state: RelayState,
        principal: Principal,
        headers: Headers,
        message: inbound.Notification | inbound.Answer | inbound.Rejection,
        send: Send,
    ) -> None:
        match message:
            case inbound.Rejection():
                self._recorder.reject("bad_request")
                error = jsonrpc.error_object(message.code, message.message, message.data)
                await send_json(send, message.status, jsonrpc.error(message.id, error))
                return
            case inbound.Notification():
                self.legacy.notified(state, principal, headers, message)
            case inbound.Answer():
                self.legacy.answered(state, principal, headers, message)
        await send_empty(send, 202)

    # -- batches

    async def _batch(
        self,
        state: RelayState,
        view: WorkspaceView,
        principal: Principal,
        body: bytes,
        headers: Headers,
        rejection: inbound.Rejection,
        receive: Receive,
        send: Send,
    ) -> None:
        version = headers.get(b"mcp-protocol-version")
        session = self.legacy.session(state, principal, headers)
        if version is None and session is not None:
            spoken: str | None = session.revision
        else:
            spoken = version.decode("latin-1") if version is not None else None
        messages = batch.split(body, spoken)
        if isinstance(messages, inbound.Rejection):
            known = messages if spoken in (None, batch.REVISION) else rejection
            await self._other(state, principal, headers, known, send)
            return
        serve = functools.partial(self._member, state, view, principal, receive)
        await serve_batch(messages, headers, serve, send)

    async def _member(
        self,
        state: RelayState,
        view: WorkspaceView,
        principal: Principal,
        receive: Receive,
        body: bytes,
        headers: Headers,
        send: Send,
    ) -> None:
        """Serve one message of a batch."""
        began = time.perf_counter_ns()
        message = inbound.read(body, headers, list(headers.items()))
        if isinstance(message, inbound.Request):
            await self._request(state, view, principal, message, headers, began, len(body), receive, send)
        else:
            await self._other(state, principal, headers, message, send)

    # -- what is no tool call

    async def _operation(self, call: Call, receive: Receive, send: Send) -> None:
        request = call.request
        stream = EventStream(send, call.headers)
        error_type: str | None = None
        cancel_scope = self._cancel_scopes.begin(receive, OPERATION_S, call)
        try:
            outcome = await self.methods.outcome(call, cancel_scope, stream)
        finally:
            self._cancel_scopes.end(cancel_scope)
        headers = None
        body = b""
        status = 200
        if outcome is None:
            error_type = ErrorType.CANCELLED
        elif isinstance(outcome, Refusal):
            error_type = outcome.error_type
            status = jsonrpc.http_status(request.era, outcome.code)
            body = jsonrpc.error(request.id, jsonrpc.error_object(outcome.code, outcome.message, outcome.data))
        else:
            body = jsonrpc.result(request.id, outcome)
            if request.method == "initialize":
                headers = self.legacy.initialized(call, outcome)
        known = request.method in methods.METHODS and error_type != str(jsonrpc.METHOD_NOT_FOUND)
        self._recorder.operation(
            Operation(
                side="server",
                method=request.method if known else UNKNOWN,  # label values never come from a request
                timestamp_ns=call.timestamp_ns,
                duration_ms=(time.perf_counter_ns() - call.began_ns) / 1e6,
                workspace_id=call.view.slug,
                token_id=call.principal.token_id,
                error_type=error_type,
            )
        )
        if outcome is None:
            await stream.end_without()
        elif stream.begun:
            await stream.end(body)
        else:
            await send_json(send, status, body, headers)


async def _read_body(first: Message, receive: Receive, headers: Headers, max_bytes: int) -> bytes:
    """The whole body, of which `first` is the beginning.

    Raises:
        RejectedError: it is larger than `requests.max_bytes`, or its client went away.
    """
    message = first
    body: bytes = message.get("body", b"")
    if message.get("more_body", False):
        declared = headers.get(b"content-length", b"")
        chunks, size = [body], len(body)
        while message.get("more_body", False):
            if size > max_bytes or (declared.isdigit() and int(declared) > max_bytes):
                break
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
        body = b"".join(chunks)
    if message["type"] == "http.disconnect":
        raise RejectedError("disconnected", 400, "the client went away")
    if len(body) > max_bytes or message.get("more_body", False):
        raise RejectedError("too_large", 413, f"the body may have at most {max_bytes} bytes")
    return body


def _admit(call: Call, quota: Quota) -> QuotaExceeded | None:
    exceeded = quota.admit(call.view.slug, call.timestamp_ns)
    if exceeded is None:
        call.usage_counter = quota.counter
    return exceeded
