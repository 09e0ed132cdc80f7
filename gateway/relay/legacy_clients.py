"""What only legacy clients do: sessions, notifications that mean something, responses, levels of log messages.

Source: specification 2025-11-25, basic/lifecycle, basic/transports, basic/utilities, server/utilities/logging.
"""

from typing import Final

from msgspec import Raw
from starlette.types import Receive, Send

from gateway.mcp import cancellation, inbound, jsonrpc, log_levels, outbound
from gateway.mcp.inbound import Headers, Request
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION, Era
from gateway.relay.active_call import Call
from gateway.relay.auth import RejectedError
from gateway.relay.deadlines import CancelScopes, RequestKey
from gateway.relay.registry import Principal
from gateway.relay.relay_state import RelayState
from gateway.relay.responses import send_empty
from gateway.relay.session_subscriptions import SessionSubscriptions
from gateway.relay.sessions import HEADER, LegacySession, Sessions

SET_LEVEL: Final = "logging/setLevel"


class LegacyClients:
    """All of them."""

    def __init__(
        self, sessions: Sessions, cancel_scopes: CancelScopes, session_subscriptions: SessionSubscriptions
    ) -> None:
        self.sessions = sessions
        self._session_subscriptions = session_subscriptions
        self._cancel_scopes = cancel_scopes

    def session(self, state: RelayState, principal: Principal, headers: Headers) -> LegacySession | None:
        """The session that a request belongs to; None if it names none.

        Raises:
            RejectedError: it names one that there is not, or not for this principal.
        """
        header = headers.get(HEADER)
        if header is None or not state.sessions:
            return None
        session = self.sessions.find(principal, header)
        if session is None:
            raise RejectedError("unknown_session", 404, "no such session, or it has ended: begin with 'initialize'")
        return session

    def join(self, call: Call) -> None:
        """Let a request take part in its session: who its client is, and what it speaks unless it says so itself.

        Raises:
            RejectedError: see `session`.
        """
        request = call.request
        if request.method == "initialize":
            return
        call.session = session = self.session(call.state, call.principal, call.headers)
        call.key = RequestKey(call.principal.workspace_id, call.principal.token_id, session, request.id)
        if session is not None:
            request.client = session.client
            if b"mcp-protocol-version" not in call.headers:
                request.version = session.revision

    def initialized(self, call: Call, result: Raw) -> list[tuple[bytes, bytes]]:
        """The headers of the answer to `initialize`: the id of a new session, if there are any."""
        if not call.state.sessions:
            return []
        revision = outbound.negotiated_version(result) or LATEST_HANDSHAKE_VERSION
        return [(HEADER, self.sessions.open(call.principal, call.request.params, revision).header)]

    def notified(
        self, state: RelayState, principal: Principal, headers: Headers, notification: inbound.Notification
    ) -> None:
        """Take a notification; only one of a legacy client means anything (streamable-http "Cancellation").

        Raises:
            RejectedError: see `session`.
        """
        if notification.era is not Era.LEGACY:
            return
        session = self.session(state, principal, headers)
        if notification.method == cancellation.METHOD:
            cancelled = cancellation.read(notification.params)
            if cancelled is not None:
                key = RequestKey(principal.workspace_id, principal.token_id, session, cancelled.request_id)
                self._cancel_scopes.cancel(key)

    def answered(
        self, state: RelayState, principal: Principal, headers: Headers, answer: inbound.ClientResponse
    ) -> None:
        """Take what a client answers to what it was asked.

        Raises:
            RejectedError: see `session`.
        """
        session = self.session(state, principal, headers)
        if session is not None:
            session.respond(answer.id, answer.response)

    async def without_body(
        self, state: RelayState, method: str, principal: Principal, headers: Headers, receive: Receive, send: Send
    ) -> None:
        """GET: the session's own stream. DELETE: its end.

        Raises:
            RejectedError: see `session`.
        """
        session = self.session(state, principal, headers)
        if session is None:  # only with an id does a request come here
            raise RejectedError("method_not_allowed", 405, "send MCP messages by POST", [(b"allow", b"POST")])
        if method == "DELETE":
            self.sessions.delete(session)
            await send_empty(send, 204)
        else:
            await self._session_subscriptions.serve_stream(session, receive, send)


def set_level(session: LegacySession, request: Request) -> Raw:
    """`logging/setLevel`: from now on the client gets these messages.

    Raises:
        InvalidLogLevelError: it names none.
    """
    session.log_level = log_levels.level_to_set(request.params)
    return jsonrpc.EMPTY_OBJECT
