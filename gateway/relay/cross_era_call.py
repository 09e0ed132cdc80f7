"""Tool calls that are more than bytes passed on: client and server are of two eras, or the client can be asked.

| client | server | what a server asks for on the way |
|---|---|---|
| legacy, in a session | legacy | its requests go to the client's stream |
| legacy, in a session | modern | `input_required` becomes requests on the client's stream |
| modern | legacy | its requests become `input_required`, and park the call |

What is modern on both sides passes unchanged, and so does what is legacy on both sides without a session.
"""

import time
from functools import lru_cache

from mcp_types import CLIENT_INFO_META_KEY
from msgspec import UNSET, Raw

from gateway import __version__
from gateway.errors import CallscopeError
from gateway.mcp import era_bridge, era_bridge_errors, input_requests, jsonrpc
from gateway.mcp.input_requests import AnswerRefusedError, InvalidAnswerError
from gateway.mcp.log_levels import InvalidLevelError
from gateway.mcp.request_state import InvalidStateError
from gateway.mcp.revisions import Era
from gateway.relay.active_call import Call
from gateway.relay.client_requests import ClientRequestSender, MissingCapabilityError, run_input_rounds
from gateway.relay.deadlines import CancelScope
from gateway.relay.input_required import InputRequiredOutcome, PendingCalls
from gateway.relay.notifications import NotificationFilter
from gateway.relay.registry import Server, WorkspaceView
from gateway.relay.responses import EventStream
from gateway.upstream.base import Client, Notify, UpstreamRequest, UpstreamResponse


class GatewayResponse(UpstreamResponse, frozen=True):
    """An answer that the gateway made itself, in the client's era."""


class InvalidRequestError(CallscopeError):
    """What the client sent cannot be served: -32602."""


class ToolResultError(CallscopeError):
    """The call fails with a text that a model can read: `result` has it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.result = jsonrpc.raw({"content": [{"type": "text", "text": message}], "isError": True})


async def relay(
    call: Call,
    upstream_request: UpstreamRequest,
    server: Server,
    cancel_scope: CancelScope,
    stream: EventStream,
    pending_calls: PendingCalls,
) -> UpstreamResponse:
    """Send a call upstream, and carry between client and server what the server asks for and tells on the way.

    Raises:
        UpstreamError: see `Upstream.request`.
        InvalidRequestError: a retry's state or answers are none.
        ToolResultError: the client cannot be asked, or would not answer.
    """
    if call.request.era is Era.LEGACY:
        return await _of_legacy_client(call, upstream_request, server, cancel_scope, stream)
    try:
        return await _of_modern_client(call, upstream_request, server, stream, pending_calls)
    except InputRequiredOutcome as asked:
        return GatewayResponse(asked.result)
    except (InvalidStateError, InvalidAnswerError, InvalidLevelError) as error:
        raise InvalidRequestError(str(error)) from error


async def _of_legacy_client(
    call: Call, upstream_request: UpstreamRequest, server: Server, cancel_scope: CancelScope, stream: EventStream
) -> UpstreamResponse:
    request, session, upstream = call.request, call.session, server.upstream
    crosses = upstream.era is Era.MODERN
    if crosses:  # what is legacy on both sides was filtered by the level already
        level = session.log_level if session is not None else None
        upstream_request.notify = NotificationFilter(stream, Era.LEGACY, request.meta, level).notify
    if session is None:
        return await upstream.request(upstream_request)
    upstream_request.client = client = ClientRequestSender(session, stream, cancel_scope).client
    if not crosses:
        return await upstream.request(upstream_request)
    upstream_request.meta = {**upstream_request.meta, CLIENT_INFO_META_KEY: session.client_info}
    try:
        return await run_input_rounds(upstream.request, upstream_request, client)
    except MissingCapabilityError as error:
        needed = jsonrpc.encode(error.needed).decode()
        raise ToolResultError(f"{error}: it cannot serve this client (needed client capabilities: {needed})") from error
    except (AnswerRefusedError, InvalidAnswerError) as error:
        raise ToolResultError(str(error)) from error


async def _of_modern_client(
    call: Call, upstream_request: UpstreamRequest, server: Server, stream: EventStream, pending_calls: PendingCalls
) -> UpstreamResponse:
    request = call.request
    upstream_request.params = input_requests.retried(upstream_request.params, {}, UNSET)

    async def begin(client: Client, notify: Notify) -> UpstreamResponse:
        upstream_request.client, upstream_request.notify = client, notify
        return await server.upstream.request(upstream_request)

    if pending_calls.is_retry(request):  # the server was asked in a round before this one
        upstream_request.acquired_ns = upstream_request.sent_ns = time.perf_counter_ns()
    notifications = NotificationFilter.of_request(stream, request)
    if not pending_calls.concerns(request):
        upstream_request.notify = notifications.notify
        return await server.upstream.request(upstream_request)
    return await pending_calls.serve(call.principal, request, notifications, begin, server_info(call.view))


def translated(call: Call, upstream: Era, reply: UpstreamResponse) -> UpstreamResponse:
    """A reply for a client of the other era, and an error for any client.

    Raises:
        InvalidResultError: it is none.
    """
    if isinstance(reply, GatewayResponse):
        return reply
    era, method = call.request.era, call.request.method
    if reply.error is not UNSET:
        response = era_bridge_errors.error(method, era, upstream, reply.error)
        return UpstreamResponse(response.result, response.error)
    if era is upstream or reply.result is UNSET:
        return reply
    return UpstreamResponse(era_bridge.result(method, era, upstream, reply.result, server_info(call.view)))


def server_info(view: WorkspaceView) -> Raw:
    """The gateway's `serverInfo`, as a client of this workspace gets it."""
    return _server_info(view.settings.name or view.slug)


@lru_cache(maxsize=1024)
def _server_info(title: str) -> Raw:
    return jsonrpc.raw({"name": "callscope", "title": title, "version": __version__})
