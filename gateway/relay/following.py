"""What a legacy client's session hears of: every list that changes, and the resources that it subscribed to.

Source: specification 2025-11-25, server/resources "Subscriptions", server/tools "List Changed Notification".
"""

from typing import Final

from msgspec import Raw

from gateway.mcp import jsonrpc, subscriptions
from gateway.mcp.inbound import Request
from gateway.mcp.subscriptions import MAX_RESOURCES, Filter
from gateway.relay.changes import Changes
from gateway.relay.forwarding import Refusal
from gateway.relay.sessions import Session
from gateway.relay.upstream.seam import UpstreamError

SUBSCRIBE: Final = "resources/subscribe"
UNSUBSCRIBE: Final = "resources/unsubscribe"
_NULL: Final = Raw(b"null")


class _Follower:
    """One session as a listener: what it is told waits for its stream."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.uris: dict[str, None] = {}

    @property
    def wanted(self) -> Filter:
        return Filter(
            tools_list_changed=True,
            prompts_list_changed=True,
            resources_list_changed=True,
            resource_subscriptions=tuple(self.uris) or None,
        )

    def note(self, method: str, params: jsonrpc.Params) -> None:
        self._session.tell(subscriptions.unstamped(method, params))

    def look(self) -> None:
        self._session.stir()


class Following:
    """The sessions that hear of changes: those with a stream, and those with subscriptions."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._followers: dict[Session, _Follower] = {}

    async def begin(self, session: Session) -> _Follower:
        """Let a session hear of changes until it ends.

        Raises:
            UpstreamError: a server refuses to be heard.
        """
        follower = self._followers.get(session)
        if follower is None:
            follower = self._followers[session] = _Follower(session)
            owner = session.owner
            session.at_end(lambda: self._end(session))
            await self._changes.add(owner.workspace_id, owner.token_id, follower)
        return follower

    async def change(self, session: Session, request: Request) -> Raw | Refusal:
        """`resources/subscribe` or `resources/unsubscribe`."""
        try:
            uri = jsonrpc.decode_string(request.params.get("uri", _NULL))
        except jsonrpc.NO_JSON:
            return Refusal(jsonrpc.INVALID_PARAMS, "'params.uri' must be a text: resources/list has the resources")
        follower = await self.begin(session)
        before = dict(follower.uris)
        if request.method == UNSUBSCRIBE:
            follower.uris.pop(uri, None)
        elif len(follower.uris) >= MAX_RESOURCES:
            return Refusal(jsonrpc.INVALID_PARAMS, f"this session follows {MAX_RESOURCES} resources already")
        else:
            follower.uris[uri] = None
        try:
            await self._changes.subscribe(session.owner.workspace_id, session.owner.token_id)
        except UpstreamError as error:
            follower.uris = before
            return Refusal(jsonrpc.INTERNAL_ERROR, f"the resource cannot be followed: {error}")
        return jsonrpc.EMPTY_OBJECT

    def _end(self, session: Session) -> None:
        follower = self._followers.pop(session, None)
        if follower is not None:
            self._changes.remove(session.owner.workspace_id, follower)
