"""What a legacy client's session hears of: every list that changes, and the resources that it subscribed to.

Source: specification 2025-11-25, server/resources "Subscriptions", server/tools "List Changed Notification".
"""

from typing import Final

from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.mcp import era_bridge_errors, jsonrpc, subscriptions
from gateway.mcp.era_bridge import InvalidResultError
from gateway.mcp.inbound import Request
from gateway.mcp.revisions import Era
from gateway.mcp.subscriptions import MAX_RESOURCES, Filter
from gateway.relay import resources
from gateway.relay.registry import WorkspaceView
from gateway.relay.responses import JsonRpcError
from gateway.relay.sessions import LegacySession
from gateway.relay.subscription_registry import SubscriptionRegistry, can_follow, meet
from gateway.upstream.base import UpstreamError

SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"


class _Follower:
    """One session as a listener: what it is told waits for its stream."""

    def __init__(self, session: LegacySession) -> None:
        self._session = session
        self._uris: dict[str, None] = {}
        self.wanted = self._wanted()

    @property
    def uris(self) -> frozenset[str]:
        """The resources that it subscribed to."""
        return frozenset(self._uris)

    def subscribe(self, uri: str) -> None:
        """Want to hear of a resource."""
        self._uris[uri] = None
        self.wanted = self._wanted()

    def unsubscribe(self, uri: str) -> None:
        """Want to hear of it no more."""
        self._uris.pop(uri, None)
        self.wanted = self._wanted()

    def note(self, method: str, params: jsonrpc.Params) -> None:
        """A change: the newest of its kind, and of its resource, is told."""
        what = (method, subscriptions.updated_uri(params))
        self._session.tell(subscriptions.unstamped(method, params), what)

    def look(self) -> None:
        """Something else has changed."""
        self._session.stir()

    def _wanted(self) -> Filter:
        return Filter(
            tools_list_changed=True,
            prompts_list_changed=True,
            resources_list_changed=True,
            resource_subscriptions=tuple(self._uris) or None,
        )


class SessionSubscriptions:
    """The sessions that hear of changes: those with a stream, and those with subscriptions."""

    def __init__(self, changes: SubscriptionRegistry) -> None:
        self._changes = changes
        self._followers: dict[LegacySession, _Follower] = {}

    async def begin(self, session: LegacySession) -> _Follower:
        """Let a session hear of changes until it ends."""
        follower = self._followers.get(session)
        if follower is None:
            follower = self._followers[session] = _Follower(session)
            owner = session.owner
            session.at_end(lambda: self._end(session))
            await self._changes.add(owner.workspace_id, owner.token_id, follower)
        return follower

    async def change(self, session: LegacySession, view: WorkspaceView, request: Request) -> Raw:
        """`resources/subscribe` or `resources/unsubscribe`."""
        await meet(view)
        if not any(can_follow(server) for server in view.servers.values()):
            raise JsonRpcError(jsonrpc.METHOD_NOT_FOUND, "no server of this workspace lets its resources be followed")
        uri = resources.uri_of(request.params)
        follower = await self.begin(session)
        if request.method == SUBSCRIBE:
            return await self._subscribe(session, follower, uri)
        if uri in follower.uris:
            follower.unsubscribe(uri)
            await self._changes.subscribe(session.owner.workspace_id, session.owner.token_id, ())
        return jsonrpc.EMPTY_OBJECT

    async def _subscribe(self, session: LegacySession, follower: _Follower, uri: str) -> Raw:
        owner, known = session.owner, uri in follower.uris
        if not known and len(follower.uris) >= MAX_RESOURCES:
            raise JsonRpcError(jsonrpc.INVALID_PARAMS, f"this session follows {MAX_RESOURCES} resources already")
        follower.subscribe(uri)
        refused = await self._changes.subscribe(owner.workspace_id, owner.token_id, (uri,))
        if uri not in refused:
            return jsonrpc.EMPTY_OBJECT
        if not known:
            follower.unsubscribe(uri)
            self._changes.settle(owner.workspace_id)
        why = refused[uri]
        raise _error(uri, why) if why is not None else resources.unknown(uri, Era.LEGACY)

    def _end(self, session: LegacySession) -> None:
        follower = self._followers.pop(session, None)
        if follower is not None:
            self._changes.remove(session.owner.workspace_id, follower)


def _error(uri: str, why: UpstreamError) -> JsonRpcError:
    """The server's own error, if it answered; else why it did not."""
    data = {"error_type": why.error_type.value, "uri": uri}
    refusal = JsonRpcError(jsonrpc.INTERNAL_ERROR, f"the resource cannot be followed: {why}", data)
    if why.error_type is not ErrorType.JSONRPC_ERROR or why.response is None:
        return refusal
    try:  # a legacy server's error passes unchanged, as a modern server's does
        said = era_bridge_errors.error(SUBSCRIBE, Era.LEGACY, Era.MODERN, Raw(why.response)).error
    except InvalidResultError:
        return refusal
    return JsonRpcError.of(said) if said is not UNSET else refusal
