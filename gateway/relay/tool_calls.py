"""`tools/call`, the hot path: route, rewrite, relay, record, answer.

The law: the record is in the journal before the answer is completed. Timestamps, ids and two appends are all the
telemetry there is here.
"""

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct
from starlette.types import Receive, Send

from gateway.calls import UNKNOWN, CallStart, ErrorType, Phases, ToolCall, ended
from gateway.mcp import jsonrpc, names, outbound, trace_context
from gateway.mcp.inbound import Request
from gateway.relay.guard import Guard, Guards
from gateway.relay.limits import Exceeded
from gateway.relay.recorder import Recorder
from gateway.relay.redaction import Redactor
from gateway.relay.responses import EventStream, Headers, rate_limited, send_json
from gateway.relay.upstream.seam import Exchange, Reply, UpstreamError
from gateway.relay.workspaces import Principal, Server, WorkspaceView

logger = logging.getLogger(__name__)

_MS: Final = 1e6
_SHOWN_NAME: Final = 128
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


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


class _Refused(Exception):  # noqa: N818 - an outcome, raised only to end the way early
    def __init__(self, failure: Failure) -> None:
        self.failure = failure


class Call:
    """One call while it runs: who, what, and when each phase ended (`perf_counter_ns`)."""

    __slots__ = (
        "authenticated_ns",
        "began_ns",
        "exchange",
        "headers",
        "principal",
        "request",
        "request_bytes",
        "routed_ns",
        "server",
        "start",
        "timestamp_ns",
        "tool",
        "trace",
        "view",
    )

    def __init__(
        self,
        view: WorkspaceView,
        principal: Principal,
        request: Request,
        headers: Mapping[bytes, bytes],
        began_ns: int,
        timestamp_ns: int,
        request_bytes: int,
    ) -> None:
        self.view = view
        self.principal = principal
        self.request = request
        self.headers = headers
        self.request_bytes = request_bytes
        self.server: Server | None = None
        self.tool = UNKNOWN
        self.exchange: Exchange | None = None
        self.start: CallStart | None = None
        self.timestamp_ns = timestamp_ns
        self.began_ns = began_ns
        self.authenticated_ns = time.perf_counter_ns()
        self.routed_ns = 0

    def identify(self, replica: str) -> CallStart:
        """Who calls what, with new ids: the start line, and the first half of the record."""
        request, server, headers = self.request, self.server, self.headers
        digits = random.randbytes(42).hex()  # noqa: S311 - ids, no secrets
        trace = trace_context.begin(digits, request.meta, headers.get(b"traceparent"), headers.get(b"tracestate"))
        self.trace = trace
        self.start = start = CallStart(
            call_id=call_id(self.timestamp_ns, digits[64:]),
            timestamp_ns=self.timestamp_ns,
            workspace_id=self.view.slug,
            token_id=self.principal.token_id,
            server_slug=server.slug if server is not None else UNKNOWN,
            tool_name=self.tool,
            trace_id=trace.trace_id,
            span_id=trace.span_id,
            upstream_span_id=trace.upstream_span_id,
            parent_span_id=trace.parent_span_id,
            link_trace_id=trace.link.trace_id if trace.link is not None else None,
            link_span_id=trace.link.span_id if trace.link is not None else None,
            trace_flags=trace.flags,
            request_bytes=self.request_bytes,
            transport=server.transport if server is not None else "http",
            upstream_address=server.upstream.address if server is not None else None,
            protocol_version=request.version,
            client_name=request.client.name,
            client_version=request.client.version,
            jsonrpc_id=str(request.id)[:_SHOWN_NAME],
            replica=replica,
        )
        return start


def call_id(timestamp_ns: int, digits: str) -> str:
    """A UUID version 7 (RFC 9562) of 19 random hex digits: sorts by time, unique without asking anyone."""
    time_hex = f"{timestamp_ns // 1_000_000:012x}"
    return f"{time_hex[:8]}-{time_hex[8:]}-7{digits[:3]}-{_VARIANT[digits[3]]}{digits[4:7]}-{digits[7:19]}"


class ToolCalls:
    """Serves `tools/call` for every workspace."""

    def __init__(self, recorder: Recorder, redactor: Redactor) -> None:
        self._recorder = recorder
        self._journal = recorder.journal
        self._replica = recorder.replica
        self._guards = Guards()
        self.redactor = redactor

    async def serve(self, call: Call, receive: Receive, send: Send, exceeded: Exceeded | None) -> None:
        """Relay one call: whatever happens, it is recorded once, and a client that is still there gets an answer."""
        stream = EventStream(send)
        reply: Reply | None = None
        try:
            if exceeded is not None:
                self._resolve(call)
                raise _Refused(Failure(ErrorType.RATE_LIMITED, f"over the limit of {exceeded.limit} requests"))
            reply = await self._relay(call, receive, stream)
            failure = self._judge(call, reply)
        except _Refused as refusal:
            failure = refusal.failure
        except Exception as error:
            logger.exception("a call failed in the gateway")
            failure = self._fail(call, ErrorType.GATEWAY_ERROR, f"internal error: {type(error).__name__}")
        status, body = self._answer(call, reply, failure)
        record = self._record(call, failure, len(body))
        self._journal.end(record)
        if failure is not None and failure.error_type is ErrorType.CANCELLED:
            return
        if exceeded is not None:
            await rate_limited(send, exceeded)
        elif stream.begun:
            await stream.end(body)
        else:
            await send_json(send, status, body, _server_timing(record.phases))

    # -- relaying

    def _resolve(self, call: Call) -> str | None:
        """Find the server and, if its catalogue has it, the tool; the upstream's own name if there is such a server."""
        name = call.request.params.get("name")
        try:
            parts = names.split(jsonrpc.decode_string(name)) if name is not None else None
        except jsonrpc.NO_JSON:
            return None
        call.server = call.view.servers.get(parts[0]) if parts else None
        if call.server is None or parts is None:
            return None
        if parts[1] in call.server.catalogue.tools:
            call.tool = parts[1]
        return parts[1]

    async def _relay(self, call: Call, receive: Receive, stream: EventStream) -> Reply:
        own_name = self._resolve(call)
        server = call.server
        if server is None or own_name is None:
            raise _Refused(self._unknown(call))
        guard = self._guards.begin(receive, server.timeout)
        try:
            tool = server.catalogue.tools.get(own_name)
            if tool is None:
                call.routed_ns = time.perf_counter_ns()  # from here on it is the upstream that is waited for
                tool = await server.catalogue.find(own_name)
            if tool is None:
                raise _Refused(self._unknown(call))
            call.tool = own_name
            request = call.request
            start = call.identify(self._replica)
            trace = call.trace
            call.exchange = Exchange(
                "tools/call",
                {**request.params, "name": own_name},
                meta=request.meta,
                name=own_name,
                traceparent=f"00-{trace.trace_id}-{trace.upstream_span_id}-{trace.flags:02x}",
                tracestate=trace.tracestate,
                notify=stream.event,
                repeatable=tool.repeatable,
            )
            self._journal.start(start)
            call.routed_ns = call.routed_ns or time.perf_counter_ns()
            reply = await server.upstream.request(call.exchange)
        except UpstreamError as error:
            server.failed(error)
            if call.exchange is not None and error.http_status is not None:
                call.exchange.http_status = error.http_status
            message = f"server {server.slug!r}: {error}"
            raise _Refused(self._fail(call, error.error_type, message, response=error.response)) from error
        except asyncio.CancelledError:
            if not guard.claim():
                raise
            raise _Refused(self._interrupted(call, server, guard)) from None
        else:
            server.succeeded()
            return reply
        finally:
            self._guards.end(guard)

    # -- outcomes

    def _unknown(self, call: Call) -> Failure:
        name = bytes(call.request.params.get("name", b"(none)"))[:_SHOWN_NAME].decode("utf-8", "replace")
        return self._fail(
            call,
            ErrorType.UNKNOWN_TOOL,
            f"unknown tool {name}: tools/list has the tools of this workspace, as <server>__<tool>",
            code=jsonrpc.INVALID_PARAMS,
        )

    def _interrupted(self, call: Call, server: Server, guard: Guard) -> Failure:
        if guard.reason == "timeout":
            message = f"server {server.slug!r} did not answer within {server.timeout:g} s"
            return self._fail(call, ErrorType.UPSTREAM_TIMEOUT, message)
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
        message = self.redactor.text(message)
        data = {"error_type": error_type.value, "server": call.server.slug if call.server is not None else None}
        return Failure(error_type, message, jsonrpc.error_object(code, message, data), response, code)

    def _judge(self, call: Call, reply: Reply) -> Failure | None:
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

    def _garbage(self, call: Call, value: Raw, what: str) -> Failure:
        slug = call.server.slug if call.server is not None else UNKNOWN
        message = f"server {slug!r} answered with {what}"
        return self._fail(call, ErrorType.UPSTREAM_PROTOCOL_ERROR, message, response=bytes(value))

    @staticmethod
    def _answer(call: Call, reply: Reply | None, failure: Failure | None) -> tuple[int, bytes]:
        request = call.request
        if failure is not None and failure.answer is not None:
            status = jsonrpc.http_status(request.era, failure.code or 0)
            return status, jsonrpc.error(request.id, failure.answer)
        if reply is None:  # refused without a JSON-RPC error of its own: rate limit, client gone
            return 200, b""
        if reply.error is not UNSET:
            code = failure.code if failure is not None and failure.code is not None else 0
            return jsonrpc.http_status(request.era, code), jsonrpc.error(request.id, reply.error)
        upstream_era = call.server.upstream.era if call.server is not None else None
        value = reply.result if reply.result is not UNSET else jsonrpc.EMPTY_OBJECT
        return 200, jsonrpc.result(request.id, outbound.result(request.era, upstream_era or request.era, value))

    def _record(self, call: Call, failure: Failure | None, response_bytes: int) -> ToolCall:
        start = call.start or call.identify(self._replica)
        now = time.perf_counter_ns()
        phases, upstream_ms = _phases(call, now)
        total_ms = (now - call.began_ns) / _MS
        http_status = call.exchange.http_status if call.exchange is not None else None
        if failure is None:
            return ended(
                start,
                "success",
                duration_ms=upstream_ms,
                total_ms=total_ms,
                response_bytes=response_bytes,
                http_status=http_status,
                phases=phases,
            )
        return ended(
            start,
            "error",
            duration_ms=upstream_ms,
            total_ms=total_ms,
            error_type=failure.error_type,
            error_message=self.redactor.text(failure.message),
            upstream_response=self.redactor.text(failure.response) if failure.response else None,
            response_bytes=response_bytes,
            jsonrpc_code=failure.code,
            http_status=http_status,
            phases=phases,
        )


def _phases(call: Call, now: int) -> tuple[Phases, float]:
    """The phases up to `now`, and the upstream's part of them; a phase that was cut ends where the call did."""
    authenticate = (call.authenticated_ns - call.began_ns) / _MS
    if call.routed_ns == 0:
        return Phases(authenticate=authenticate, route=(now - call.authenticated_ns) / _MS), 0.0
    route = (call.routed_ns - call.authenticated_ns) / _MS
    exchange = call.exchange
    if exchange is None:
        waited = (now - call.routed_ns) / _MS
        return Phases(authenticate=authenticate, route=route, acquire=waited), waited
    done = exchange.done_ns or now
    acquired = exchange.acquired_ns or done
    sent = exchange.sent_ns or done
    first = exchange.first_byte_ns or done
    phases = Phases(
        authenticate=authenticate,
        route=route,
        acquire=(acquired - call.routed_ns) / _MS,
        send=(sent - acquired) / _MS,
        wait=(first - sent) / _MS,
        receive=(done - first) / _MS,
        respond=(now - done) / _MS,
    )
    return phases, (done - call.routed_ns) / _MS


def _server_timing(phases: Phases) -> Headers:
    """The phases for a browser's or a client's own tools (W3C Server Timing)."""
    return [
        (
            b"server-timing",
            b"authenticate;dur=%.3f, route;dur=%.3f, acquire;dur=%.3f, send;dur=%.3f, wait;dur=%.3f, receive;dur=%.3f,"
            b" respond;dur=%.3f"
            % (
                phases.authenticate,
                phases.route,
                phases.acquire,
                phases.send,
                phases.wait,
                phases.receive,
                phases.respond,
            ),
        )
    ]
