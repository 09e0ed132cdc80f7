"""`tools/call`, the hot path: route, rewrite, relay, record, answer.

The law: the record is in the journal before the answer is completed. Timestamps, ids and two appends are all the
telemetry there is here.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct
from starlette.types import Receive, Send

from gateway.calls import UNKNOWN, ErrorType
from gateway.journal import lines
from gateway.mcp import jsonrpc
from gateway.mcp.era_bridge import InvalidResultError
from gateway.relay import cross_era_call, param_header_check
from gateway.relay.active_call import Call, server_timing
from gateway.relay.deadlines import CancelScope, CancelScopes
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.input_required import PendingCalls
from gateway.relay.param_header_check import ParamHeaderError
from gateway.relay.quota import CODE as QUOTA_CODE
from gateway.relay.quota import QuotaExceeded
from gateway.relay.rate_limit import RateLimitExceeded
from gateway.relay.redaction import Redactor
from gateway.relay.registry import Route, Server
from gateway.relay.responses import EventStream, over_quota, rate_limited, send_json
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse

logger = logging.getLogger(__name__)

_NO_NAME: Final = Raw(b"")
_SHOWN_NAME: Final = 128


class _Probe(Struct):
    """Reads one member of a result and copies nothing."""

    isError: bool | None = False  # noqa: N815 - the member's name in MCP


class _Block(Struct):
    text: str = ""


class _FailedResult(Struct):
    content: list[_Block] = []


_probe: Final = msgspec.json.Decoder(_Probe).decode
_failed_result: Final = msgspec.json.Decoder(_FailedResult).decode


class Failure(NamedTuple):
    """Why a call failed; `answer` is the JSON-RPC error for the client, unless the upstream gave the answer."""

    error_type: ErrorType
    message: str
    answer: Raw | None = None
    response: bytes | None = None
    code: int | None = None
    result: Raw | None = None
    """For the client, in the place of an error: a text that a model can read."""


class _CallFailed(Exception):  # noqa: N818 - an outcome, raised only to end the way early
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class ToolCalls:
    """Serves `tools/call` for every workspace."""

    def __init__(self, recorder: HeartbeatWriter, cancel_scopes: CancelScopes, pending_calls: PendingCalls) -> None:
        self._recorder = recorder
        self._journal = recorder.journal
        self._replica = lines.members(replica=recorder.replica) + ","
        self._cancel_scopes = cancel_scopes
        self._pending_calls = pending_calls

    async def serve(
        self, call: Call, receive: Receive, send: Send, over: RateLimitExceeded | QuotaExceeded | None
    ) -> None:
        """Relay one call: whatever happens, it is recorded once, and a client that is still there gets an answer.

        One that is over a limit is not sent on.
        """
        stream = EventStream(send, call.headers)
        reply: UpstreamResponse | None = None
        try:
            if over is not None:
                raise self._over(call, over)
            reply = await self._relay(call, receive, stream)
            failure = self._judge(call, reply)
            if reply.error is not UNSET or (
                call.server is not None and call.server.upstream.era is not call.request.era
            ):
                reply = self._translated(call, reply, failure)
        except _CallFailed as refusal:
            failure = refusal.failure
        except ParamHeaderError as error:
            await self._no_call(call, error, send)
            return
        except (cross_era_call.InvalidRequestError, cross_era_call.ToolResultError) as error:
            failure = self._not_crossed(call, error)
        except Exception as error:
            logger.exception("a call failed in the gateway")
            failure = self._fail(call, ErrorType.GATEWAY_ERROR, f"internal error: {type(error).__name__}")
        status, body = self._answer(call, reply, failure)
        timing = self._record(call, failure, len(body))
        if failure is not None and failure.error_type is ErrorType.CANCELLED:
            await stream.end_without()
        elif over is not None:
            await self._refuse(call, over, body, send)
        elif stream.begun:
            await stream.end(body)
        else:
            await send_json(send, status, body, [(b"server-timing", timing)])

    # -- relaying

    async def _relay(self, call: Call, receive: Receive, stream: EventStream) -> UpstreamResponse:
        name = call.request.params.get("name", _NO_NAME)
        route = call.view.route(name)
        server = route.server if route is not None else call.view.resolve(name)[0]
        if server is None:
            raise _CallFailed(self._unknown(call))
        call.server = server
        cancel_scope = self._cancel_scopes.begin(receive, server.timeout, call)
        try:
            if route is None:
                route = await self._found(call, server, name)
            call.tool = route.tool
            identity = call.identify(self._replica, route)
            call.upstream_request = upstream_request = self._upstream_request(call, route, stream)
            self._journal.start(call.call_id, lines.start(identity))
            server.in_flight += 1
            if call.routed_ns == 0:
                call.routed_ns = time.perf_counter_ns()
            try:
                if call.session is None and server.upstream.era is call.request.era:
                    reply = await server.upstream.request(upstream_request)
                else:
                    reply = await cross_era_call.relay(
                        call, upstream_request, server, cancel_scope, stream, self._pending_calls
                    )
                if reply.error is not UNSET and param_header_check.is_mismatch(reply):
                    reply = await self._sent_anew(call, route, reply, cancel_scope, stream)
            finally:
                server.in_flight -= 1
        except UpstreamError as error:
            raise _CallFailed(self._not_reached(call, server, error)) from error
        except asyncio.CancelledError:
            if not cancel_scope.claim():
                raise
            raise _CallFailed(self._interrupted(call, server, cancel_scope)) from None
        else:
            server.succeeded()
            return reply
        finally:
            self._cancel_scopes.end(cancel_scope)

    async def _found(self, call: Call, server: Server, name: Raw) -> Route:
        """Where a name leads that was not known: the server may have it by now."""
        call.routed_ns = time.perf_counter_ns()  # from here on it is the upstream that is waited for
        await server.catalog.find(call.view.resolve(name)[1])
        route = call.view.route(name)
        if route is None:
            raise _CallFailed(self._unknown(call))
        return route

    def _sent(
        self,
        call: Call,
        upstream_request: UpstreamRequest,
        server: Server,
        cancel_scope: CancelScope,
        stream: EventStream,
    ) -> Awaitable[UpstreamResponse]:
        """Once more what stands in `_relay`, where it is on the way of every call and spares it a frame."""
        if call.session is None and server.upstream.era is call.request.era:
            return server.upstream.request(upstream_request)
        return cross_era_call.relay(call, upstream_request, server, cancel_scope, stream, self._pending_calls)

    def _upstream_request(self, call: Call, route: Route, stream: EventStream) -> UpstreamRequest:
        trace = call.trace
        return UpstreamRequest(
            "tools/call",
            {**call.request.params, "name": route.name},
            meta=call.request.meta,
            name=route.tool,
            traceparent=f"00-{trace.trace_id}-{trace.upstream_span_id}-{trace.flags:02x}",
            tracestate=trace.tracestate,
            notify=stream.event,
            repeatable=route.repeatable,
            token_id=call.principal.token_id,
            param_lines=param_header_check.lines(call, route.param_headers),
        )

    async def _sent_anew(
        self, call: Call, route: Route, reply: UpstreamResponse, cancel_scope: CancelScope, stream: EventStream
    ) -> UpstreamResponse:
        """A server that finds headers and arguments at odds may have changed its tool: list anew, send once more.

        Nothing else of the listing matters: with the same header lines the answer would be the same.
        """
        server, before = route.server, call.upstream_request
        await server.catalog.list()
        changed = call.view.route(call.request.params.get("name", _NO_NAME))
        if changed is None or before is None:
            return reply
        try:
            upstream_request = self._upstream_request(call, changed, stream)
        except ParamHeaderError as error:  # the client's listing is older than the server's
            raise _CallFailed(self._fail(call, ErrorType.JSONRPC_ERROR, str(error), code=error.code)) from error
        if upstream_request.param_lines == before.param_lines:
            return reply
        call.upstream_request = upstream_request
        return await self._sent(call, upstream_request, server, cancel_scope, stream)

    # -- outcomes

    def _over(self, call: Call, over: RateLimitExceeded | QuotaExceeded) -> _CallFailed:
        name = call.request.params.get("name", _NO_NAME)
        route = call.view.route(name)
        call.server = call.view.resolve(name)[0]
        call.tool = route.tool if route is not None else UNKNOWN
        if isinstance(over, RateLimitExceeded):
            return _CallFailed(Failure(ErrorType.RATE_LIMITED, f"over the limit of {over.limit} requests"))
        error = jsonrpc.error_object(QUOTA_CODE, over.message, over.data)
        return _CallFailed(Failure(ErrorType.QUOTA_EXCEEDED, over.message, error, code=QUOTA_CODE))

    @staticmethod
    async def _refuse(call: Call, over: RateLimitExceeded | QuotaExceeded, body: bytes, send: Send) -> None:
        if isinstance(over, RateLimitExceeded):
            await rate_limited(send, over)
        else:
            await over_quota(send, body, over.retry_after_s(call.timestamp_ns))

    async def _no_call(self, call: Call, error: ParamHeaderError, send: Send) -> None:
        """What was asked for is no call, but a bad request."""
        self._recorder.reject("bad_request")
        if call.usage_counter is not None:
            call.usage_counter.discard(call.view.slug, call.timestamp_ns)
        answer = jsonrpc.error(call.request.id, jsonrpc.error_object(error.code, str(error)))
        await send_json(send, jsonrpc.http_status(call.request.era, error.code), answer)

    def _unknown(self, call: Call) -> Failure:
        name = bytes(call.request.params.get("name", b"(none)"))[:_SHOWN_NAME].decode("utf-8", "replace")
        return self._fail(
            call,
            ErrorType.UNKNOWN_TOOL,
            f"unknown tool {name}: tools/list has the tools of this workspace, as <server>__<tool>",
            code=jsonrpc.INVALID_PARAMS,
        )

    def _not_crossed(
        self, call: Call, error: cross_era_call.InvalidRequestError | cross_era_call.ToolResultError
    ) -> Failure:
        if isinstance(error, cross_era_call.ToolResultError):
            return Failure(ErrorType.TOOL_ERROR, str(error), result=error.result)
        return self._fail(call, ErrorType.JSONRPC_ERROR, str(error), code=jsonrpc.INVALID_PARAMS)

    def _not_reached(self, call: Call, server: Server, error: UpstreamError) -> Failure:
        server.failed(error)
        if call.upstream_request is not None and error.http_status is not None:
            call.upstream_request.http_status = error.http_status
        message = f"server {server.slug!r}: {error}"
        return self._fail(call, error.error_type, message, response=error.response)

    def _interrupted(self, call: Call, server: Server, cancel_scope: CancelScope) -> Failure:
        if cancel_scope.reason == "timeout":
            message = f"server {server.slug!r} did not answer within {server.timeout:g} s"
            return self._fail(call, ErrorType.UPSTREAM_TIMEOUT, message)
        if cancel_scope.reason == "cancelled":
            return Failure(ErrorType.CANCELLED, "the client cancelled the call before the answer")
        return Failure(ErrorType.CANCELLED, "the client closed its connection before the answer")

    def _fail(
        self,
        call: Call,
        error_type: ErrorType,
        message: str,
        *,
        code: int = jsonrpc.INTERNAL_ERROR,
        response: bytes | None = None,
    ) -> Failure:
        """A failure that the gateway itself has to tell the client of: which server failed, and how."""
        message = call.state.redactor.text(message)
        data = {"error_type": error_type.value, "server": call.server.slug if call.server is not None else None}
        return Failure(error_type, message, jsonrpc.error_object(code, message, data), response, code)

    def _judge(self, call: Call, reply: UpstreamResponse) -> Failure | None:
        """None if the upstream's answer is a success."""
        if reply.error is not UNSET:
            try:
                error = jsonrpc.decode_error(reply.error)
            except jsonrpc.NO_JSON:
                return self._garbage(call, reply.error, "an error that is none of JSON-RPC's")
            return Failure(ErrorType.JSONRPC_ERROR, error.message, None, bytes(reply.error), error.code)
        if reply.result is UNSET:
            return self._garbage(call, Raw(), "no result")
        try:
            if not _probe(reply.result).isError:
                return None
        except jsonrpc.NO_JSON:
            return self._garbage(call, reply.result, "a result that is no object of MCP's")
        try:
            message = "\n".join(block.text for block in _failed_result(reply.result).content if block.text)
        except jsonrpc.NO_JSON:
            message = ""
        return Failure(ErrorType.TOOL_ERROR, message or "the tool failed and said nothing", None, bytes(reply.result))

    def _translated(self, call: Call, reply: UpstreamResponse, failure: Failure | None) -> UpstreamResponse:
        """The reply for the client's era; its record keeps what the upstream said."""
        if call.server is None or (failure is not None and failure.answer is not None):
            return reply
        try:
            return cross_era_call.translated(call, call.server.upstream.era or call.request.era, reply)
        except InvalidResultError as error:
            value = reply.result if reply.result is not UNSET else Raw()
            raise _CallFailed(self._garbage(call, value, str(error))) from error

    def _garbage(self, call: Call, value: Raw, what: str) -> Failure:
        slug = call.server.slug if call.server is not None else UNKNOWN
        message = f"server {slug!r} answered with {what}"
        return self._fail(call, ErrorType.UPSTREAM_PROTOCOL_ERROR, message, response=bytes(value))

    @staticmethod
    def _answer(call: Call, reply: UpstreamResponse | None, failure: Failure | None) -> tuple[int, bytes]:
        request = call.request
        if failure is not None and failure.answer is not None:
            status = jsonrpc.http_status(request.era, failure.code or 0)
            return status, jsonrpc.error(request.id, failure.answer)
        if failure is not None and failure.result is not None:
            return 200, jsonrpc.result(request.id, failure.result)
        if reply is None:  # refused without a JSON-RPC error of its own: rate limit, client gone
            return 200, b""
        if reply.error is not UNSET:
            code = jsonrpc.decode_error(reply.error).code  # the client's, which may be another than the record's
            return jsonrpc.http_status(request.era, code), jsonrpc.error(request.id, reply.error)
        return 200, jsonrpc.result(request.id, reply.result if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT)

    def _record(self, call: Call, failure: Failure | None, response_bytes: int) -> bytes:
        """Write the call's record; its phases, for the answer's `Server-Timing`."""
        if not call.identity:
            call.identify(self._replica, None)
        line, phases = call.end(
            _failure_members(failure, call.state.redactor) if failure is not None else "", response_bytes
        )
        self._journal.end(call.call_id, line)
        if call.usage_counter is not None:
            call.usage_counter.end(call.view.slug, call.timestamp_ns, self._journal.line_end)
        return server_timing(phases)


def _failure_members(failure: Failure, redactor: Redactor) -> str:
    return lines.members(
        error_type=failure.error_type,
        error_message=redactor.text(failure.message),
        upstream_response=redactor.text(failure.response) if failure.response else None,
        jsonrpc_code=failure.code,
    )
