"""Calls that wait for input: what a legacy server requests of a modern client while the client's request runs.

The client gets an `input_required` result with a sealed `requestState`; its retry continues the same call. Laws: a
state is good for one retry, of the same request by the same principal; the number of waiting calls is bounded for each
token, and so is their time; a client that disconnects during a round ends its call.

Source: specification 2026-07-28, basic/patterns/mrtr; 2025-11-25, client/*.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from mcp_types import CLIENT_CAPABILITIES_META_KEY
from msgspec import Raw

from gateway.mcp import capabilities, input_requests, jsonrpc, log_levels, request_state
from gateway.mcp.capabilities import InvalidInputRequestError
from gateway.mcp.inbound import Request
from gateway.mcp.input_requests import InputRequest
from gateway.mcp.jsonrpc import DECODE_ERRORS, Id, Params
from gateway.mcp.request_state import Binding, InvalidRequestStateError
from gateway.relay.notifications import NotificationFilter
from gateway.relay.registry import Principal
from gateway.upstream.base import Client, Notify, UpstreamResponse

PENDING_S: Final = 600.0
"""How long a client may take for its retry: a person may have to type the answer."""
MAX_PENDING: Final = 32
"""Waiting calls of one token; one more ends the oldest."""

Begin = Callable[[Client, Notify], Coroutine[Any, Any, UpstreamResponse]]
"""Starts a call; it gets the client that its server may send requests to, and the target of its notifications."""


class _PendingCall:
    """One call, which runs in a task of its own: it goes on between the client's rounds."""

    def __init__(self, begin: Begin, declared: Raw, log_level: str | None) -> None:
        self.id = secrets.token_urlsafe(16)
        self.round = 0
        self.notifications: NotificationFilter | None = None
        """Leads to the client's request of the current round; None between rounds."""
        self.expiry: asyncio.TimerHandle | None = None
        self.open_requests: dict[Id, InputRequest] = {}
        """What the server waits for."""
        self._ids = itertools.count(1)
        self._responses: dict[Id, asyncio.Future[UpstreamResponse]] = {}
        self._changed = asyncio.Event()
        self.task = asyncio.create_task(begin(Client(declared, self._ask, log_level), self._notify))
        self.task.add_done_callback(self._done)

    @property
    def state(self) -> str:
        """What `requestState` says; the round is in it, so that a state is good once."""
        return f"{self.id}.{self.round}"

    async def until_input_required(self) -> None:
        """Wait until the call is done or its server waits for the client."""
        while not self.task.done() and not self.open_requests:
            self._changed.clear()
            await self._changed.wait()

    def respond(self, answers: Mapping[Id, Raw]) -> None:
        for number, answer in answers.items():
            del self.open_requests[number]  # at once, so that the next round does not ask for it again
            if not self._responses[number].done():
                self._responses[number].set_result(UpstreamResponse(answer))

    def cancel(self) -> None:
        if self.expiry is not None:
            self.expiry.cancel()
        self.task.cancel()

    async def _notify(self, data: bytes) -> None:
        if self.notifications is not None:
            await self.notifications.notify(data)

    async def _ask(self, method: str, params: Raw) -> UpstreamResponse:
        try:
            request = input_requests.from_server_request(method, jsonrpc.decode_params(params))
        except InvalidInputRequestError as error:
            return UpstreamResponse(error=jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, str(error)))
        number = next(self._ids)
        self.open_requests[number] = request
        response: asyncio.Future[UpstreamResponse] = asyncio.get_running_loop().create_future()
        self._responses[number] = response
        self._changed.set()
        try:
            return await response
        finally:
            del self._responses[number]
            self.open_requests.pop(number, None)

    def _done(self, task: asyncio.Task[UpstreamResponse]) -> None:
        self._changed.set()
        if not task.cancelled():
            task.exception()  # asyncio would log it as never retrieved if no client comes back


class PendingCalls:
    """The waiting calls of all tokens. `clock` is the time in seconds since the Unix epoch."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._keys = (key,)
        self._clock = clock
        self._by_owner: dict[str, dict[str, _PendingCall]] = {}

    async def serve(
        self, principal: Principal, request: Request, notifications: NotificationFilter, begin: Begin, server_info: Raw
    ) -> UpstreamResponse:
        """Begin a call, or continue the one that the request's state names: its response, or `input_required`.

        Raises:
            InvalidParamsError: the `requestState`, an answer or the log level is not valid.
        """
        binding = request_state.bind(f"{principal.workspace_id}/{principal.token_id}", request.method, request.params)
        if "requestState" in request.params:
            call = self._resume(binding, request.params)
        else:
            declared = request.meta.get(CLIENT_CAPABILITIES_META_KEY)
            can = capabilities.for_upstream(declared)
            call = _PendingCall(begin, can, log_levels.level_of_request(request.meta))
        call.notifications = notifications
        try:
            await call.until_input_required()
        except BaseException:
            call.cancel()
            raise
        finally:
            call.notifications = None
        if call.task.done():
            return call.task.result()
        return UpstreamResponse(self._suspend(binding, call, server_info))

    def close(self) -> None:
        """End every call that waits: the relay stops."""
        for calls in self._by_owner.values():
            for call in calls.values():
                call.cancel()
        self._by_owner.clear()

    def _suspend(self, binding: Binding, call: _PendingCall, server_info: Raw) -> Raw:
        calls = self._by_owner.setdefault(binding.principal, {})
        while len(calls) >= MAX_PENDING:
            calls.pop(next(iter(calls))).cancel()
        calls[call.id] = call
        call.round += 1
        call.expiry = asyncio.get_running_loop().call_later(PENDING_S, self._expire, binding.principal, call)
        state = request_state.seal(self._keys, binding, call.state, self._clock() + PENDING_S)
        return input_requests.input_required(call.open_requests, state, server_info)

    def _resume(self, binding: Binding, params: Params) -> _PendingCall:
        sealed = _request_state(params)
        state = jsonrpc.decode_string(request_state.unseal(self._keys, binding, sealed, self._clock()))
        call = self._by_owner.get(binding.principal, {}).get(state.rpartition(".")[0])
        if call is None or call.state != state:
            raise InvalidRequestStateError("the requestState was used, or its call has ended: begin again without it")
        answers = input_requests.input_responses(call.open_requests, params)  # if they are invalid, the call waits on
        self._remove(binding.principal, call)
        call.respond(answers)
        return call

    def _expire(self, owner: str, call: _PendingCall) -> None:
        self._remove(owner, call)
        call.cancel()

    def _remove(self, owner: str, call: _PendingCall) -> None:
        if call.expiry is not None:
            call.expiry.cancel()
        calls = self._by_owner.get(owner, {})
        calls.pop(call.id, None)
        if not calls:
            self._by_owner.pop(owner, None)


def can_be_asked(request: Request) -> bool:
    """Whether the client of a modern request declares any capability."""
    declared = request.meta.get(CLIENT_CAPABILITIES_META_KEY)
    return declared is not None and bytes(declared) != b"{}"


def is_retry(request: Request) -> bool:
    """Whether a modern request brings back a state of the gateway's, and not one of a server's own."""
    return "requestState" in request.params and request_state.is_sealed(_request_state(request.params))


def _request_state(params: Params) -> str:
    """The request's `requestState`; empty, and so invalid, if it is not a string."""
    try:
        return jsonrpc.decode_string(params["requestState"])
    except DECODE_ERRORS:
        return ""
