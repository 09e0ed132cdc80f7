"""What only legacy clients do: sessions over HTTP, notifications and responses to the gateway.

Source: specification 2025-11-25, basic/lifecycle, basic/transports, basic/utilities/cancellation.
"""

from msgspec import Raw

from gateway.mcp import cancellation, outbound
from gateway.mcp.inbound import ClientResponse, Notification
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, Era
from gateway.relay.active_call import Call, HttpRequest
from gateway.relay.auth import RejectedError
from gateway.relay.deadlines import CancelScopes, RequestKey
from gateway.relay.responses import send_empty
from gateway.relay.session_subscriptions import SessionSubscriptions
from gateway.relay.sessions import HEADER, LegacySession, Sessions


class LegacyClients:
    """Finds the session of each request. All methods raise `RejectedError` if the request names an invalid one."""

    def __init__(
        self, sessions: Sessions, cancel_scopes: CancelScopes, session_subscriptions: SessionSubscriptions
    ) -> None:
        self._sessions = sessions
        self._cancel_scopes = cancel_scopes
        self._session_subscriptions = session_subscriptions

    def session(self, request: HttpRequest) -> LegacySession | None:
        """The session that a request names; None if it names none."""
        header = request.headers.get(HEADER)
        if header is None or not request.state.sessions:
            return None
        session = self._sessions.find(request.principal, header)
        if session is None:
            raise RejectedError("unknown_session", 404, "no such session, or it has ended: begin with 'initialize'")
        return session

    def join(self, call: Call) -> None:
        """Give a call its session, and from it the client and, unless a header says it, the revision."""
        request = call.request
        if request.method == "initialize":
            return
        call.session = session = self.session(call)
        call.key = RequestKey(call.principal.workspace_id, call.principal.token_id, session, request.id)
        if session is not None:
            request.client = session.client
            if b"mcp-protocol-version" not in call.headers:
                request.version = session.revision

    def initialized(self, call: Call, result: Raw) -> list[tuple[bytes, bytes]]:
        """The headers for the result of `initialize`: the id of a new session."""
        if not call.state.sessions:
            return []
        revision = outbound.negotiated_version(result) or LATEST_HANDSHAKE_VERSION
        return [(HEADER, self._sessions.open(call.principal, call.request.params, revision).header)]

    def notified(self, http: HttpRequest, notification: Notification) -> None:
        """Take a notification. Only a cancellation has an effect, and only a legacy client's (streamable-http)."""
        if notification.era is not Era.LEGACY:
            return
        session = self.session(http)
        cancelled = cancellation.read(notification.params) if notification.method == cancellation.METHOD else None
        if cancelled is not None:
            owner = http.principal
            self._cancel_scopes.cancel(RequestKey(owner.workspace_id, owner.token_id, session, cancelled.request_id))

    def responded(self, http: HttpRequest, response: ClientResponse) -> None:
        """Take the response to a request that a server sent to the client."""
        session = self.session(http)
        if session is not None:
            session.respond(response.id, response.response)

    async def serve_get_or_delete(self, http: HttpRequest, method: str) -> None:
        """GET opens the session's notification stream, DELETE ends the session."""
        session = self.session(http)
        if session is None:  # `authenticate` lets neither in without a session's id
            raise RejectedError("method_not_allowed", 405, "send MCP messages by POST", [(b"allow", b"POST")])
        if method == "DELETE":
            self._sessions.delete(session)
            await send_empty(http.send, 204)
        else:
            await self._session_subscriptions.serve_stream(session, http.receive, http.send)
