"""`subscriptions/listen`: the notification stream of a modern client.

Recorded as its duration is the time until it is acknowledged: how long a client then keeps the stream open says
nothing about the gateway, and would drown the rest of the histogram.

Source: specification 2026-07-28, basic/patterns/subscriptions.
"""

import functools
import math
import time
from collections import Counter
from collections.abc import Callable

from gateway.mcp import capabilities, jsonrpc, sse, subscriptions
from gateway.mcp.jsonrpc import InvalidParamsError
from gateway.mcp.subscriptions import SubscriptionFilter
from gateway.relay.active_call import Call
from gateway.relay.forwarding import server_info
from gateway.relay.heartbeat import HeartbeatWriter
from gateway.relay.notification_stream import NotificationQueue, send_notifications
from gateway.relay.registry import WorkspaceRegistry, WorkspaceView
from gateway.relay.responses import JsonRpcError, send_json
from gateway.relay.subscription_registry import SubscriptionRegistry, list_unmet_servers, offers_subscriptions


class SubscriptionStreams:
    """The streams of every workspace."""

    def __init__(
        self,
        registry: Callable[[], WorkspaceRegistry],
        heartbeat: HeartbeatWriter,
        subscription_registry: SubscriptionRegistry,
        *,
        max_streams: int,
        keep_alive_s: float,
    ) -> None:
        """`registry` gives the newest configuration's; `max_streams` is for each token."""
        self._registry = registry
        self._heartbeat = heartbeat
        self._subscriptions = subscription_registry
        self._max_streams = max_streams
        self._keep_alive_s = keep_alive_s
        self._open: Counter[tuple[str, str]] = Counter()
        self._closed = False

    def close(self) -> None:
        """End every stream, with its result."""
        self._closed = True
        self._subscriptions.close()

    async def serve(self, call: Call) -> None:
        """Serve one request, until the client disconnects, its token is revoked or expires, or the relay stops."""
        owner = (call.view.slug, call.principal.token_id)
        try:
            requested = subscriptions.read(call.request.params)
        except InvalidParamsError as error:
            await self._reject(call, JsonRpcError(jsonrpc.INVALID_PARAMS, str(error)))
            return
        if self._open[owner] >= self._max_streams:
            message = f"this token has {self._max_streams} subscription streams open: close one first"
            await self._reject(call, JsonRpcError(jsonrpc.INVALID_REQUEST, message))
            return
        self._open[owner] += 1
        try:
            await list_unmet_servers(call.view)
            encode = functools.partial(subscriptions.with_subscription_id, call.request.id)
            queue = NotificationQueue(_offered(call.view, requested), encode)
            try:
                await self._stream(call, queue)
            finally:
                self._subscriptions.of(call.view.slug).remove(queue)
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]

    async def _stream(self, call: Call, queue: NotificationQueue) -> None:
        request_id = call.request.id
        workspace = self._subscriptions.of(call.view.slug)
        rejected = await workspace.add(queue, call.principal.token_id)
        if rejected:
            queue.filter = subscriptions.without(queue.filter, rejected)
            workspace.synchronize()
        self._heartbeat.record(call.operation(subscriptions.METHOD, None))
        connected = await send_notifications(
            queue,
            call.receive,
            call.send,
            first=sse.encode(subscriptions.acknowledged(request_id, queue.filter)),
            seconds_left=lambda: self._seconds_left(call),
            keep_alive_s=self._keep_alive_s,
        )
        if connected:
            result = jsonrpc.result(request_id, subscriptions.final_result(request_id, server_info(call.view)))
            await call.send({"type": "http.response.body", "body": sse.encode(result)})

    def _seconds_left(self, call: Call) -> float:
        """Until the token expires; 0 if it was revoked or the relay stops."""
        secret = call.headers.get(b"authorization", b"")[len(b"Bearer ") :].strip()
        principal = self._registry().principal(secret)
        if self._closed or principal is None or principal[:2] != call.principal[:2]:
            return 0.0
        return math.inf if principal.expires_at is None else principal.expires_at - time.time()

    async def _reject(self, call: Call, error: JsonRpcError) -> None:
        self._heartbeat.record(call.operation(subscriptions.METHOD, error.error_type))
        await send_json(call.send, jsonrpc.http_status(call.request.era, error.code), error.response(call.request.id))


def _offered(view: WorkspaceView, requested: SubscriptionFilter) -> SubscriptionFilter:
    """The part of a filter that a server declares: changes of a list, subscriptions to resources."""
    declared = [capabilities.read_server(server.upstream.declared) for server in view.servers.values()]
    subscribable = any(offers_subscriptions(server) for server in view.servers.values())
    return subscriptions.honored(
        requested,
        tools=any(one.tools is not None and one.tools.list_changed for one in declared),
        prompts=any(one.prompts is not None and one.prompts.list_changed for one in declared),
        resources=any(one.resources is not None and one.resources.list_changed for one in declared),
        subscribable=lambda _: subscribable,
    )
