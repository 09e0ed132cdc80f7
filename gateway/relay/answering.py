"""The answer to a request that is no tool call, with what its client has to be asked on the way."""

import asyncio
import functools
import logging
from typing import Final

from mcp_types.methods import INPUT_REQUIRED_METHODS
from msgspec import Raw

from gateway.mcp import jsonrpc
from gateway.mcp.input_requests import InvalidAnswerError
from gateway.mcp.log_levels import InvalidLevelError
from gateway.mcp.request_state import InvalidStateError
from gateway.mcp.revisions import Era
from gateway.relay import methods
from gateway.relay.active_call import Call
from gateway.relay.client_requests import ClientRequestSender
from gateway.relay.cross_era_call import server_info
from gateway.relay.deadlines import CancelScope
from gateway.relay.input_required import InputRequiredOutcome, PendingCalls
from gateway.relay.legacy_clients import SET_LEVEL, set_level
from gateway.relay.methods import Refusal
from gateway.relay.notifications import NotificationFilter
from gateway.relay.responses import EventStream
from gateway.relay.session_subscriptions import SUBSCRIBE, UNSUBSCRIBE, SessionSubscriptions
from gateway.upstream.base import Client, Notify

logger = logging.getLogger(__name__)

INTERNAL: Final = "internal error: the gateway's log has the reason"
OPERATION_S: Final = 600.0
"""The most that a request may take; what goes upstream for it has its server's own limit."""


class Methods:
    """Answers requests for every workspace."""

    def __init__(self, pending_calls: PendingCalls, following: SessionSubscriptions) -> None:
        self._pending_calls = pending_calls
        self._following = following

    async def outcome(self, call: Call, cancel_scope: CancelScope, stream: EventStream) -> Raw | Refusal | None:
        """The result or the error; None if its client does not wait any more."""
        try:
            if call.request.era is Era.LEGACY:
                return await self._to_legacy(call, cancel_scope, stream)
            return await self._to_modern(call, stream)
        except InputRequiredOutcome as asked:
            return asked.result
        except (InvalidLevelError, InvalidStateError, InvalidAnswerError) as error:
            return Refusal(jsonrpc.INVALID_PARAMS, str(error))
        except asyncio.CancelledError:
            if not cancel_scope.claim():
                raise
            if cancel_scope.reason == "timeout":
                return Refusal(jsonrpc.INTERNAL_ERROR, f"there was no answer within {OPERATION_S:g} s")
            return None
        except Exception:
            logger.exception("%s failed in the gateway", call.request.method)
            return Refusal(jsonrpc.INTERNAL_ERROR, INTERNAL)

    async def _to_legacy(self, call: Call, cancel_scope: CancelScope, stream: EventStream) -> Raw | Refusal:
        request, session = call.request, call.session
        if session is None:
            notify = NotificationFilter(stream, Era.LEGACY, request.meta, None).notify
            return await self._answer(call, None, notify)
        if request.method == SET_LEVEL:
            return set_level(session, request)
        if request.method in (SUBSCRIBE, UNSUBSCRIBE):
            return await self._following.change(session, call.view, request)
        notify = NotificationFilter(stream, Era.LEGACY, request.meta, session.log_level).notify
        return await self._answer(call, ClientRequestSender(session, stream, cancel_scope).client, notify)

    async def _to_modern(self, call: Call, stream: EventStream) -> Raw | Refusal:
        request = call.request
        notifications = NotificationFilter.of_request(stream, request)
        if request.method in INPUT_REQUIRED_METHODS and self._may_park(call):
            begin = functools.partial(self._answer, call)
            return await self._pending_calls.serve(
                call.principal, request, notifications, begin, server_info(call.view)
            )
        return await self._answer(call, None, notifications.notify)

    def _may_park(self, call: Call) -> bool:
        if self._pending_calls.is_retry(call.request):
            return True
        servers = call.view.servers.values()
        return self._pending_calls.may_ask(call.request) and any(one.upstream.era is not Era.MODERN for one in servers)

    async def _answer(self, call: Call, client: Client | None, notify: Notify) -> Raw | Refusal:
        return await methods.answer(
            call.view,
            call.request,
            token_id=call.principal.token_id,
            client=client,
            notify=notify,
            sessions=call.state.sessions,
        )
