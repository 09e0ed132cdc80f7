"""What a legacy client's session is notified of: every list that changes, and the resources it subscribed to.

The notifications wait for the stream that the client opens by GET.

Source: specification 2025-11-25, server/resources "Subscriptions", server/tools "List Changed Notification";
basic/transports, "Listening for Messages from the Server".
"""

import math
from typing import Final

from msgspec import UNSET, Raw
from starlette.types import Receive, Send

from gateway.calls import ErrorType
from gateway.mcp import era_bridge, jsonrpc
from gateway.mcp.era_bridge import InvalidResultError
from gateway.mcp.inbound import Request
from gateway.mcp.revisions import Era
from gateway.relay import resources
from gateway.relay.notification_stream import send_notifications
from gateway.relay.registry import WorkspaceView
from gateway.relay.responses import JsonRpcError
from gateway.relay.sessions import LegacySession
from gateway.relay.subscription_registry import SubscriptionRegistry, list_unmet_servers, offers_subscriptions
from gateway.upstream.base import UpstreamError

SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"


class SessionSubscriptions:
    """The sessions that get notifications: those whose client opened a stream or subscribed to a resource."""

    def __init__(
        self,
        subscription_registry: SubscriptionRegistry,
        *,
        max_resources: int,
        keep_alive_s: float,
    ) -> None:
        """`max_resources` is for each session."""
        self._subscriptions = subscription_registry
        self._max_resources = max_resources
        self._keep_alive_s = keep_alive_s

    async def serve_stream(self, session: LegacySession, receive: Receive, send: Send) -> None:
        """Serve the session's stream, until the client disconnects or opens another one, or the session ends."""
        await self._add(session)
        session.stream = own = object()
        session.queue.wake()  # an older stream ends
        try:
            await send_notifications(
                session.queue,
                receive,
                send,
                first=b"",
                seconds_left=lambda: math.inf if session.stream is own else 0.0,
                keep_alive_s=self._keep_alive_s,
            )
        finally:
            if session.stream is own:
                session.stream = None
            session.queue.wake()  # a wake-up of the newer stream may have ended here
        await send({"type": "http.response.body", "body": b""})

    async def serve(self, session: LegacySession, view: WorkspaceView, request: Request) -> Raw:
        """Answer `resources/subscribe` or `resources/unsubscribe`."""
        await list_unmet_servers(view)
        if not any(offers_subscriptions(server) for server in view.servers.values()):
            raise JsonRpcError(
                jsonrpc.METHOD_NOT_FOUND, "no server of this workspace offers subscriptions to resources"
            )
        uri = resources.uri_of(request.params)
        await self._add(session)
        if request.method == SUBSCRIBE:
            return await self._subscribe(session, uri)
        if uri in session.subscribed_uris:
            session.unsubscribe(uri)
            await self._subscriptions.of(session.owner.workspace_id).subscribe((), session.owner.token_id)
        return jsonrpc.EMPTY_OBJECT

    async def _add(self, session: LegacySession) -> None:
        """Let a session get notifications until it ends."""
        workspace = self._subscriptions.of(session.owner.workspace_id)
        if session.queue not in workspace.subscribers:
            session.at_end(lambda: workspace.remove(session.queue))
            await workspace.add(session.queue, session.owner.token_id)

    async def _subscribe(self, session: LegacySession, uri: str) -> Raw:
        known = uri in session.subscribed_uris
        if not known and len(session.subscribed_uris) >= self._max_resources:
            message = f"this session has {self._max_resources} subscriptions already: unsubscribe from one first"
            raise JsonRpcError(jsonrpc.INVALID_PARAMS, message)
        session.subscribe(uri)
        workspace = self._subscriptions.of(session.owner.workspace_id)
        rejected = await workspace.subscribe((uri,), session.owner.token_id)
        if uri not in rejected:
            return jsonrpc.EMPTY_OBJECT
        if not known:
            session.unsubscribe(uri)
            workspace.synchronize()
        error = rejected[uri]
        raise _rejection(uri, error) if error is not None else resources.unknown(uri, Era.LEGACY)


def _rejection(uri: str, error: UpstreamError) -> JsonRpcError:
    """The server's own error, if it answered; else why it did not."""
    data = {"error_type": error.error_type.value, "uri": uri}
    unknown = JsonRpcError(jsonrpc.INTERNAL_ERROR, f"no subscription to the resource: {error}", data)
    if error.error_type is not ErrorType.JSONRPC_ERROR or error.response is None:
        return unknown
    try:  # a legacy server's error passes unchanged, as a modern server's does
        translated = era_bridge.error(SUBSCRIBE, Era.LEGACY, Era.MODERN, Raw(error.response)).error
    except InvalidResultError:
        return unknown
    return JsonRpcError.of(translated) if translated is not UNSET else unknown
