"""One request in progress: who, what, when each phase ended; and, of a tool call, its two lines in the journal."""

import random
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import msgspec
from starlette.types import Receive, Send

from gateway.calls import UNKNOWN, Operation
from gateway.journal import lines
from gateway.mcp import trace_context
from gateway.mcp.inbound import ClientInfo, Headers, Request
from gateway.relay.deadlines import CancelScope, RequestKey
from gateway.relay.quota import UsageCounter
from gateway.relay.redaction import without_nul
from gateway.relay.registry import Principal, Route, Server, WorkspaceView, route_members
from gateway.relay.relay_state import RelayState
from gateway.relay.responses import EventStream
from gateway.relay.sessions import LegacySession
from gateway.upstream.base import UpstreamRequest

_MS: Final = 1e6
_NOT_SENT: Final = UpstreamRequest("", {})
_SHOWN_ID: Final = 128
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


@dataclass(slots=True, eq=False)
class HttpRequest:
    """An authenticated HTTP request, or one message of its batch."""

    state: RelayState
    view: WorkspaceView
    principal: Principal
    headers: Headers
    receive: Receive
    send: Send


@dataclass(slots=True, eq=False)
class Call(HttpRequest):
    """A client's request in progress. Times are `perf_counter_ns`; 0 is a phase that was not reached."""

    request: Request
    stream: EventStream
    began_ns: int
    timestamp_ns: int
    request_bytes: int
    authenticated_ns: int = field(default_factory=time.perf_counter_ns)
    routed_ns: int = 0
    session: LegacySession | None = None
    """A legacy client's, if it has one."""
    key: RequestKey | None = None
    """By which a legacy client can cancel it; a modern client disconnects instead."""
    usage_counter: UsageCounter | None = None
    """What has counted the call, and must learn how it ends. None while plans are not enforced."""
    server: Server | None = None
    tool: str = UNKNOWN
    upstream_request: UpstreamRequest | None = None
    identity: str = ""
    call_id: str = field(init=False)
    trace: trace_context.Trace = field(init=False)
    cancel_scope: CancelScope = field(init=False)

    def operation(self, method: str, error_type: str | None) -> Operation:
        """The record of a request that is not a tool call, and is answered now."""
        return Operation(
            side="server",
            method=method,
            timestamp_ns=self.timestamp_ns,
            duration_ms=(time.perf_counter_ns() - self.began_ns) / _MS,
            workspace_id=self.view.slug,
            token_id=self.principal.token_id,
            error_type=error_type,
        )

    def identify(self, replica: str, route: Route | None) -> str:
        """Give the call its ids. The result is the part that both of its lines have, the members of `CallIdentity`."""
        request, headers = self.request, self.headers
        digits = random.randbytes(42).hex()  # noqa: S311 - ids, no secrets
        trace = trace_context.begin(digits, request.meta, headers.get(b"traceparent"), headers.get(b"tracestate"))
        self.trace = trace
        self.call_id = new_id = call_id(self.timestamp_ns, digits[64:])
        where = route.members if route is not None else route_members(self.view.slug, self.server, self.tool)
        jsonrpc_id = request.id if type(request.id) is int else _escaped(str(request.id)[:_SHOWN_ID])
        parent = _parent_members(trace) if trace.parent_span_id is not None else ""
        if self.session is not None:
            parent += self.session.members
        self.identity = (
            f'"call_id":"{new_id}","timestamp_ns":{self.timestamp_ns},{where},{replica}{self.principal.members},'
            f'{_client_members(request.version, request.client)},"trace_id":"{trace.trace_id}",'
            f'"span_id":"{trace.span_id}","upstream_span_id":"{trace.upstream_span_id}",'
            f'"request_bytes":{self.request_bytes},"jsonrpc_id":"{jsonrpc_id}"{parent}'
        )
        return self.identity

    def end(self, failure: str, response_bytes: int) -> tuple[bytes, lines.PhaseTexts]:
        """The line that records the call as ended now, and its phases.

        A phase that was not reached takes no time; one that was interrupted ends with the call.
        """
        now = time.perf_counter_ns()
        sent = self.upstream_request or _NOT_SENT
        routed_ns = self.routed_ns or now
        done_ns = sent.done_ns or now
        acquired_ns = sent.acquired_ns or done_ns
        sent_ns = sent.sent_ns or done_ns
        first_ns = sent.first_byte_ns or done_ns
        phases = lines.PhaseTexts(
            authenticate=f"{(self.authenticated_ns - self.began_ns) / _MS:.4f}",
            route=f"{(routed_ns - self.authenticated_ns) / _MS:.4f}",
            acquire=f"{(acquired_ns - routed_ns) / _MS:.4f}",
            send=f"{(sent_ns - acquired_ns) / _MS:.4f}",
            wait=f"{(first_ns - sent_ns) / _MS:.4f}",
            receive=f"{(done_ns - first_ns) / _MS:.4f}",
            respond=f"{(now - done_ns) / _MS:.4f}",
        )
        line = lines.end(
            self.identity,
            failure=failure,
            duration_ms=f"{(done_ns - routed_ns) / _MS:.4f}",
            total_ms=f"{(now - self.began_ns) / _MS:.4f}",
            response_bytes=response_bytes,
            http_status=sent.http_status,
            phases=phases,
        )
        return line, phases


def call_id(timestamp_ns: int, digits: str) -> str:
    """A UUID version 7 (RFC 9562) of 19 random hex digits; it sorts by time."""
    time_part = _time_part(timestamp_ns // 1_000_000)
    return f"{time_part}-7{digits[:3]}-{_VARIANT[digits[3]]}{digits[4:7]}-{digits[7:19]}"


@lru_cache(maxsize=16)
def _time_part(milliseconds: int) -> str:
    digits = f"{milliseconds:012x}"
    return f"{digits[:8]}-{digits[8:]}"


def server_timing(phases: lines.PhaseTexts) -> bytes:
    """The phases as a `Server-Timing` header (W3C Server Timing)."""
    authenticate, route, acquire, send, wait, receive, respond = phases
    return (
        f"authenticate;dur={authenticate}, route;dur={route}, acquire;dur={acquire}, send;dur={send}, "
        f"wait;dur={wait}, receive;dur={receive}, respond;dur={respond}"
    ).encode()


def _escaped(text: str) -> str:
    return msgspec.json.encode(text).decode()[1:-1]


@lru_cache(maxsize=1024)
def _client_members(version: str, client: ClientInfo) -> str:
    shown = {"client_name": client.name, "client_version": client.version}
    return lines.members(
        protocol_version=version, **{name: without_nul(text) for name, text in shown.items() if text is not None}
    )


def _parent_members(trace: trace_context.Trace) -> str:
    link = trace.link
    return "," + lines.members(
        parent_span_id=trace.parent_span_id,
        link_trace_id=link.trace_id if link is not None else None,
        link_span_id=link.span_id if link is not None else None,
        trace_flags=trace.flags,
    )
