"""One client's request to one server, whatever era each of them speaks.

The gateway carries the response over (`gateway.mcp.era_bridge`), and what the server needs from the client meanwhile:

| client | server | a server's requests for input |
|---|---|---|
| legacy, in a session | legacy | go to the stream of the client's request |
| legacy, in a session | modern | `input_required` becomes requests on the stream of the client's request |
| modern | legacy | become `input_required`; the call waits for the client's retry |
| modern | modern | pass unchanged, as `input_required` |
"""

import functools
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from mcp_types import CLIENT_INFO_META_KEY
from msgspec import UNSET, Raw

from gateway import __version__
from gateway.calls import ErrorType
from gateway.mcp import era_bridge, input_requests, jsonrpc
from gateway.mcp.input_requests import InputRefusedError, InvalidInputResponseError
from gateway.mcp.jsonrpc import InvalidParamsError
from gateway.mcp.revisions import Era
from gateway.relay import input_required
from gateway.relay.active_call import Call
from gateway.relay.deadlines import upstream_timeout
from gateway.relay.elicitation import MissingCapabilityError, client_on_stream, send_until_complete
from gateway.relay.input_required import PendingCalls
from gateway.relay.notifications import NotificationFilter
from gateway.relay.registry import Server, WorkspaceView
from gateway.relay.responses import JsonRpcError
from gateway.upstream.base import Client, Notify, UpstreamError, UpstreamRequest, UpstreamResponse


class Caller(NamedTuple):
    """A request that is not `tools/call`, and how a server reaches its client before the response."""

    call: Call
    client: Client | None
    notify: Notify | None


async def forward(caller: Caller, server: Server, params: Mapping[str, Any], name: str | None) -> Raw:
    """The server's result for the client. `params` have the server's own names, `name` is what `Mcp-Name` says.

    Raises:
        JsonRpcError: the server's error, or why it gave no response.
    """
    call, slug = caller.call, server.slug
    try:
        async with upstream_timeout(server.timeout, caller.client) as (client, limit):
            upstream_request = UpstreamRequest(
                call.request.method,
                params,
                meta=call.request.meta,
                name=name,
                notify=caller.notify,
                repeatable=True,
                token_id=call.principal.token_id,
                client=client,
            )
            send = functools.partial(server.request, limit=limit)
            if call.request.era is Era.LEGACY:
                reply = await send_until_complete(send, upstream_request)
            else:
                reply = await send(upstream_request)
        response = for_client(call, reply)
    except (MissingCapabilityError, InputRefusedError, InvalidInputResponseError) as error:
        raise JsonRpcError(jsonrpc.INTERNAL_ERROR, f"server {slug!r}: {error}", {"server": slug}) from error
    except TimeoutError:
        why = f"did not answer within {server.timeout:g} s"
        raise _failed(ErrorType.UPSTREAM_TIMEOUT, server, f"server {slug!r} {why}") from None
    except UpstreamError as error:
        raise _failed(error.error_type, server, f"server {slug!r}: {error}") from error
    except era_bridge.InvalidResultError as error:
        raise _failed(ErrorType.UPSTREAM_PROTOCOL_ERROR, server, f"server {slug!r}: {error}") from error
    if response.error is not UNSET:
        raise JsonRpcError.of(response.error, reply.era)
    return response.result if response.result is not UNSET else jsonrpc.EMPTY_OBJECT


def _failed(error_type: ErrorType, server: Server, message: str) -> JsonRpcError:
    return JsonRpcError(jsonrpc.INTERNAL_ERROR, message, {"error_type": error_type.value, "server": server.slug})


async def forward_tool_call(
    call: Call, upstream_request: UpstreamRequest, server: Server, pending_calls: PendingCalls
) -> UpstreamResponse:
    """Send a `tools/call` whose client and server are of two eras, or whose client can be asked for input.

    Raises:
        UpstreamError: see `Upstream.request`.
        JsonRpcError: the client's state, answers or log level are invalid.
    """
    if call.request.era is Era.LEGACY:
        return await _of_legacy_client(call, upstream_request, server)
    try:
        return await _of_modern_client(call, upstream_request, server, pending_calls)
    except InvalidParamsError as error:
        raise JsonRpcError(jsonrpc.INVALID_PARAMS, str(error)) from error


async def _of_legacy_client(call: Call, upstream_request: UpstreamRequest, server: Server) -> UpstreamResponse:
    session, upstream = call.session, server.upstream
    if upstream.era is Era.MODERN:  # a legacy server knows the session's log level and filters by it
        level = session.log_level if session is not None else None
        upstream_request.notify = NotificationFilter(call.stream, call.request, level).notify
        if session is not None:
            upstream_request.meta = {**upstream_request.meta, CLIENT_INFO_META_KEY: session.client_info}
    if session is None:
        return await upstream.request(upstream_request)
    upstream_request.client = client_on_stream(session, call.stream, call.cancel_scope)
    try:
        return await send_until_complete(upstream.request, upstream_request)
    except MissingCapabilityError as error:
        needed = jsonrpc.encode(error.needed).decode()
        text = f"{error}: it cannot serve this client (needed client capabilities: {needed})"
    except (InputRefusedError, InvalidInputResponseError) as error:
        text = str(error)
    return UpstreamResponse(era_bridge.failed_result(text, Era.LEGACY))


async def _of_modern_client(
    call: Call, upstream_request: UpstreamRequest, server: Server, pending_calls: PendingCalls
) -> UpstreamResponse:
    request = call.request
    upstream_request.params = input_requests.retry_params(upstream_request.params, {}, UNSET)

    async def begin(client: Client, notify: Notify) -> UpstreamResponse:
        upstream_request.client, upstream_request.notify = client, notify
        return await server.upstream.request(upstream_request)

    if input_required.is_retry(request):  # the request itself was sent in an earlier round
        upstream_request.acquired_ns = upstream_request.sent_ns = time.perf_counter_ns()
    notifications = NotificationFilter(call.stream, request)
    if input_required.can_be_asked(request) or "requestState" in request.params:
        info = server_info(call.view)
        return await pending_calls.serve(call.principal, request, notifications, begin, info)
    upstream_request.notify = notifications.notify
    return await server.upstream.request(upstream_request)


def for_client(call: Call, reply: UpstreamResponse) -> UpstreamResponse:
    """A server's reply in the era of the client; one without an era is the gateway's own and stays as it is.

    The server's era is that of the reply: by now the server may speak another one.

    Raises:
        InvalidResultError: the reply is not valid in its era.
    """
    era, method = call.request.era, call.request.method
    if reply.era is None:
        return reply
    if reply.error is not UNSET:
        response = era_bridge.error(method, era, reply.era, reply.error)
        return UpstreamResponse(response.result, response.error)
    if reply.era is era or reply.result is UNSET:
        return reply
    return UpstreamResponse(era_bridge.result(method, era, reply.era, reply.result, server_info(call.view)))


def server_info(view: WorkspaceView) -> Raw:
    """The gateway's `serverInfo` for the clients of a workspace."""
    return _server_info(view.settings.name or view.slug)


@lru_cache(maxsize=1024)
def _server_info(title: str) -> Raw:
    return jsonrpc.raw({"name": "callscope", "title": title, "version": __version__})
