"""`tools/call`, the hot path: route, rewrite, relay, record, respond.

The law: the record is in the journal before the response is completed. The only telemetry here is timestamps, ids and
two appends to the journal.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Final

import msgspec
from mcp_types.jsonrpc import HEADER_MISMATCH
from msgspec import UNSET, Raw, Struct

from gateway.calls import UNKNOWN, ErrorType
from gateway.journal import lines
from gateway.mcp import jsonrpc, param_headers
from gateway.mcp.era_bridge import InvalidResultError
from gateway.mcp.param_headers import ParamHeaderError
from gateway.relay.active_call import Call, server_timing
from gateway.relay.deadlines import CancelScope, CancelScopes
from gateway.relay.forwarding import for_client, forward_tool_call
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.input_required import PendingCalls
from gateway.relay.quota import CODE as QUOTA_CODE
from gateway.relay.quota import QuotaExceeded
from gateway.relay.rate_limit import RateLimitExceeded
from gateway.relay.registry import Route, Server
from gateway.relay.responses import JsonRpcError, rate_limited, send_json
from gateway.upstream.base import UpstreamError, UpstreamRequest, UpstreamResponse

logger = logging.getLogger(__name__)

LimitExceeded = RateLimitExceeded | QuotaExceeded

_NO_NAME: Final = Raw(b"")
_SHOWN_NAME: Final = 128
_NO_RESPONSE: Final = UpstreamResponse()
"""For a client that gets no JSON-RPC response: it has gone, or is answered by HTTP alone."""


class _Result(Struct):
    """Reads one member of a result and copies nothing."""

    isError: bool | None = False  # noqa: N815 - the member's name in MCP


class _Content(Struct):
    text: str = ""


class _FailedResult(Struct):
    content: list[_Content] = []


_decode_result: Final = msgspec.json.Decoder(_Result).decode
_decode_failed_result: Final = msgspec.json.Decoder(_FailedResult).decode


class CallFailure(Exception):  # noqa: N818 - the outcome of a call, raised where it ends the call early
    """Why a call failed, and what its client gets instead of the upstream's response."""

    def __init__(
        self,
        error_type: ErrorType,
        message: str,
        code: int | None = None,
        upstream_response: bytes | None = None,
        response: UpstreamResponse = _NO_RESPONSE,
    ) -> None:
        super().__init__(message)
        self.error_type = error_type
        self.code = code
        self.upstream_response = upstream_response
        self.response = response


class ToolCalls:
    """Serves `tools/call` for every workspace."""

    def __init__(self, recorder: HeartbeatWriter, cancel_scopes: CancelScopes, pending_calls: PendingCalls) -> None:
        self._recorder = recorder
        self._journal = recorder.journal
        self._replica = lines.members(replica=recorder.replica) + ","
        self._cancel_scopes = cancel_scopes
        self._pending_calls = pending_calls

    async def serve(self, call: Call, exceeded: LimitExceeded | None) -> None:
        """Relay one call, unless a limit is exceeded. Whatever happens, it is recorded once."""
        stream, send = call.stream, call.send
        failure: CallFailure | None
        try:
            if exceeded is not None:
                raise _over_limit(call, exceeded)
            response = await self._relay(call)
            failure = _failure_of(call, response)
            if response.error is not UNSET or response.era is not call.request.era:
                response = _for_client(call, response)
        except CallFailure as error:
            failure, response = error, error.response
        except ParamHeaderError as error:
            await self._reject(call, error)
            return
        except Exception as error:
            logger.exception("a call failed in the gateway")
            failure = _failed(call, ErrorType.GATEWAY_ERROR, f"internal error: {type(error).__name__}")
            response = failure.response
        status, body = _body(call, response)
        timing = self._record(call, failure, len(body))  # before the response, so a kill loses no answered call
        if failure is not None and failure.error_type is ErrorType.CANCELLED:
            await stream.end_without_response()
        elif isinstance(exceeded, RateLimitExceeded):
            await rate_limited(send, exceeded)
        elif exceeded is not None:
            retry_after = b"%d" % exceeded.retry_after_s(call.timestamp_ns)
            await send_json(send, 429, body, [(b"retry-after", retry_after)])
        elif stream.begun:
            await stream.end(body)
        else:
            await send_json(send, status, body, [(b"server-timing", timing)])

    async def _relay(self, call: Call) -> UpstreamResponse:
        name = call.request.params.get("name", _NO_NAME)
        route = call.view.route(name)
        server = route.server if route is not None else call.view.resolve(name)[0]
        if server is None:
            raise _unknown_tool(call)
        call.server = server
        call.cancel_scope = cancel_scope = self._cancel_scopes.open(call.receive, server.timeout, call.key)
        try:
            if route is None:
                route = await _find_tool(call, server, name)
            call.tool = route.tool
            identity = call.identify(self._replica, route)
            call.upstream_request = upstream_request = _upstream_request(call, route)
            # If the relay dies from here on, the observer finds the start without an end and records a failed call.
            self._journal.start(call.call_id, lines.start(identity))
            server.in_flight += 1
            if call.routed_ns == 0:  # else the time of looking for the tool counts as the upstream's
                call.routed_ns = time.perf_counter_ns()
            try:
                response = await self._send(call, upstream_request, server)
                if response.error is not UNSET and jsonrpc.code_of(response.error) == HEADER_MISMATCH:
                    response = await self._send_again(call, route, response)
            finally:
                server.in_flight -= 1
        except UpstreamError as error:
            raise _upstream_failed(call, server, error) from error
        except JsonRpcError as error:
            raise _failed(call, ErrorType.JSONRPC_ERROR, str(error), code=error.code) from error
        except asyncio.CancelledError:
            if not cancel_scope.uncancel():
                raise
            raise _ended(call, server, cancel_scope) from None
        else:
            server.succeeded()
            return response
        finally:
            self._cancel_scopes.close(cancel_scope)

    def _send(self, call: Call, request: UpstreamRequest, server: Server) -> Awaitable[UpstreamResponse]:
        # A legacy client without a session cannot be asked for input, so nothing has to be carried over.
        if call.session is None and server.upstream.era is call.request.era:
            return server.upstream.request(request)
        return forward_tool_call(call, request, server, self._pending_calls)

    async def _send_again(self, call: Call, route: Route, response: UpstreamResponse) -> UpstreamResponse:
        """List the tools again and repeat a call whose `Mcp-Param-*` headers the server rejected.

        The tool may have changed. If the new listing gives the same headers, the server would reject them again.
        """
        await route.server.catalog.list()
        changed = call.view.route(call.request.params.get("name", _NO_NAME))
        if changed is None:
            return response
        try:
            upstream_request = _upstream_request(call, changed)
        except ParamHeaderError as error:  # the client's listing is older than the server's
            raise JsonRpcError(error.code, str(error)) from error
        if call.upstream_request is None or upstream_request.param_lines == call.upstream_request.param_lines:
            return response
        call.upstream_request = upstream_request
        return await self._send(call, upstream_request, route.server)

    async def _reject(self, call: Call, error: ParamHeaderError) -> None:
        """Headers that contradict the arguments are a bad request: no call took place."""
        self._recorder.count_rejection("bad_request")
        if call.usage_counter is not None:
            call.usage_counter.discard(call.view.slug, call.timestamp_ns)
        body = jsonrpc.error(call.request.id, jsonrpc.error_object(error.code, str(error)))
        await send_json(call.send, jsonrpc.http_status(call.request.era, error.code), body)

    def _record(self, call: Call, failure: CallFailure | None, response_bytes: int) -> bytes:
        """Write the call's record; its phases, for the `Server-Timing` header."""
        if not call.identity:
            call.identify(self._replica, None)
        members = ""
        if failure is not None:
            redact = call.state.redactor.text
            members = lines.members(
                error_type=failure.error_type,
                error_message=redact(str(failure)),
                upstream_response=redact(failure.upstream_response) if failure.upstream_response else None,
                jsonrpc_code=failure.code,
            )
        line, phases = call.end(members, response_bytes)
        self._journal.end(call.call_id, line)
        if call.usage_counter is not None:
            call.usage_counter.end(call.view.slug, call.timestamp_ns, self._journal.line_end)
        return server_timing(phases)


async def _find_tool(call: Call, server: Server, name: Raw) -> Route:
    """The route of a tool that no listing had so far: the server may have it by now."""
    call.routed_ns = time.perf_counter_ns()  # the time from here on is the upstream's
    await server.catalog.find(call.view.resolve(name)[1])
    route = call.view.route(name)
    if route is None:
        raise _unknown_tool(call)
    return route


def _upstream_request(call: Call, route: Route) -> UpstreamRequest:
    """The call with the upstream's own name of the tool, in the span that the upstream's own spans belong to.

    Raises:
        ParamHeaderError: see `param_headers.upstream_lines`.
    """
    request, trace = call.request, call.trace
    return UpstreamRequest(
        "tools/call",
        {**request.params, "name": route.name},
        meta=request.meta,
        name=route.tool,
        traceparent=f"00-{trace.trace_id}-{trace.upstream_span_id}-{trace.flags:02x}",
        tracestate=trace.tracestate,
        notify=call.stream.event,
        repeatable=route.repeatable,
        token_id=call.principal.token_id,
        param_lines=param_headers.upstream_lines(
            route.param_headers, call.headers, request.params.get("arguments"), request.era
        ),
    )


def _for_client(call: Call, response: UpstreamResponse) -> UpstreamResponse:
    try:
        return for_client(call, response)
    except InvalidResultError as error:
        raise _invalid(call, response.result or Raw(), str(error)) from error


def _body(call: Call, response: UpstreamResponse) -> tuple[int, bytes]:
    """The HTTP status and the body for the client."""
    request = call.request
    if response.error is not UNSET:
        code = jsonrpc.decode_error(response.error).code  # may differ from the record's, which is the upstream's
        return jsonrpc.http_status(request.era, code), jsonrpc.error(request.id, response.error)
    if response.result is not UNSET:
        return 200, jsonrpc.result(request.id, response.result)
    return 200, b""


# -- why calls fail


def _failure_of(call: Call, response: UpstreamResponse) -> CallFailure | None:
    """What the upstream's response says of the call; None for a success."""
    if response.error is not UNSET:
        try:
            error = jsonrpc.decode_error(response.error)
        except jsonrpc.DECODE_ERRORS:
            raise _invalid(call, response.error, "an error that is not a JSON-RPC error object") from None
        return CallFailure(ErrorType.JSONRPC_ERROR, error.message, error.code, bytes(response.error))
    if response.result is UNSET:
        raise _invalid(call, Raw(), "no result")
    try:
        if not _decode_result(response.result).isError:
            return None
    except jsonrpc.DECODE_ERRORS:
        raise _invalid(call, response.result, "a result that is not an object of MCP") from None
    try:
        content = _decode_failed_result(response.result).content
        message = "\n".join(block.text for block in content if block.text)
    except jsonrpc.DECODE_ERRORS:
        message = ""
    said = bytes(response.result) if response.era is not None else None  # without an era it is the gateway's own
    return CallFailure(ErrorType.TOOL_ERROR, message or "the tool failed without a message", None, said)


def _failed(
    call: Call,
    error_type: ErrorType,
    message: str,
    *,
    code: int = jsonrpc.INTERNAL_ERROR,
    response: bytes | None = None,
) -> CallFailure:
    """A failure of which the client is told by an error of the gateway's own: which server failed, and how."""
    message = call.state.redactor.text(message)
    data = {"error_type": error_type.value, "server": call.server.slug if call.server is not None else None}
    error = jsonrpc.error_object(code, message, data)
    return CallFailure(error_type, message, code, response, UpstreamResponse(error=error))


def _over_limit(call: Call, exceeded: LimitExceeded) -> CallFailure:
    name = call.request.params.get("name", _NO_NAME)
    route = call.view.route(name)
    call.server = call.view.resolve(name)[0]
    call.tool = route.tool if route is not None else UNKNOWN
    if isinstance(exceeded, RateLimitExceeded):
        return CallFailure(ErrorType.RATE_LIMITED, f"over the limit of {exceeded.limit} requests")
    error = jsonrpc.error_object(QUOTA_CODE, exceeded.message, exceeded.data)
    response = UpstreamResponse(error=error)
    return CallFailure(ErrorType.QUOTA_EXCEEDED, exceeded.message, QUOTA_CODE, response=response)


def _unknown_tool(call: Call) -> CallFailure:
    name = bytes(call.request.params.get("name", b"(none)"))[:_SHOWN_NAME].decode("utf-8", "replace")
    message = f"unknown tool {name}: tools/list has the tools of this workspace, as <server>__<tool>"
    return _failed(call, ErrorType.UNKNOWN_TOOL, message, code=jsonrpc.INVALID_PARAMS)


def _upstream_failed(call: Call, server: Server, error: UpstreamError) -> CallFailure:
    server.failed(error)
    if call.upstream_request is not None and error.http_status is not None:
        call.upstream_request.http_status = error.http_status
    return _failed(call, error.error_type, f"server {server.slug!r}: {error}", response=error.response)


def _ended(call: Call, server: Server, cancel_scope: CancelScope) -> CallFailure:
    match cancel_scope.reason:
        case "timeout":
            message = f"server {server.slug!r} did not answer within {server.timeout:g} s"
            return _failed(call, ErrorType.UPSTREAM_TIMEOUT, message)
        case "cancelled":
            return CallFailure(ErrorType.CANCELLED, "the client cancelled the call before the response")
    return CallFailure(ErrorType.CANCELLED, "the client disconnected before the response")


def _invalid(call: Call, value: Raw, what: str) -> CallFailure:
    slug = call.server.slug if call.server is not None else UNKNOWN
    message = f"server {slug!r} answered with {what}"
    return _failed(call, ErrorType.UPSTREAM_PROTOCOL_ERROR, message, response=bytes(value))
