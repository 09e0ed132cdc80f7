"""What a legacy server asks for while a modern client's request runs.

The server's request parks its call: the client gets `input_required` with a sealed `requestState`, and its retry takes
the call up again. Laws: a state is good for one retry, by the same principal, with the same request; what is pending is
bounded, for each token and in time, and ends when its client goes away in the midst of a round.

Source: specification 2026-07-28, basic/patterns/mrtr; 2025-11-25, client/*.
"""

import asyncio
import itertools
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, NamedTuple, TypeVar

from mcp_types import CLIENT_CAPABILITIES_META_KEY
from msgspec import Raw

from gateway.errors import CallscopeError
from gateway.mcp import capabilities, input_requests, jsonrpc, log_levels, request_state
from gateway.mcp.capabilities import InvalidInputRequestError
from gateway.mcp.inbound import Request
from gateway.mcp.input_requests import InputRequest
from gateway.mcp.jsonrpc import NO_JSON, Params
from gateway.mcp.request_state import Binding, InvalidStateError
from gateway.mcp.revisions import Era
from gateway.relay.notifications import NotificationFilter
from gateway.relay.registry import Principal
from gateway.upstream.base import Client, Notify, UpstreamResponse

PENDING_S: Final = 600.0
"""How long a client may take for its retry: behind it is a person."""
MAX_PENDING: Final = 32
"""Of one token at a time; one more, and the oldest ends."""

_Outcome = TypeVar("_Outcome")
Begin = Callable[[Client, Notify], Coroutine[Any, Any, _Outcome]]
"""Begins the work that may ask, with whom to ask, and whom to tell of progress."""


class InputRequiredOutcome(CallscopeError):  # noqa: N818 - an outcome, raised to end the round
    """The client has to answer first: `result` is the `input_required` for it."""

    def __init__(self, result: Raw) -> None:
        super().__init__("the client has to answer first")
        self.result = result


class _Open(NamedTuple):
    question: InputRequest
    answer: asyncio.Future[UpstreamResponse]


class _PendingCall(Generic[_Outcome]):
    """One call's work, which goes on between the rounds."""

    def __init__(self, begin: Begin[_Outcome], client: Raw, level: str | None) -> None:
        self.id = secrets.token_urlsafe(16)
        self.round = 0
        self.notifications: NotificationFilter | None = None
        """To the client that waits at the moment."""
        self.expiry: asyncio.TimerHandle | None = None
        self._ids = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._turn: asyncio.Future[None] | None = None
        self.work = asyncio.create_task(begin(Client(client, self._ask, level), self._notify))
        self.work.add_done_callback(lambda _: self._wake())

    @property
    def questions(self) -> dict[int | str, InputRequest]:
        """What its server waits for, by id."""
        return {number: one.question for number, one in self._open.items()}

    async def until_turn(self) -> None:
        """Wait until the work is done, or its server waits for the client."""
        while not self.work.done() and not self._open:
            self._turn = asyncio.get_running_loop().create_future()
            await self._turn

    def answer(self, number: int, reply: UpstreamResponse) -> None:
        """What the client says to a question."""
        one = self._open.pop(number, None)
        if one is not None and not one.answer.done():
            one.answer.set_result(reply)

    def abandon(self) -> None:
        """Nobody comes back for it."""
        if self.expiry is not None:
            self.expiry.cancel()
        if not self.work.done():
            self.work.cancel()

    async def _notify(self, data: bytes) -> None:
        if self.notifications is not None:
            await self.notifications.notify(data)

    async def _ask(self, method: str, params: Raw) -> UpstreamResponse:
        try:
            question = input_requests.read_question(method, jsonrpc.decode_params(params))
        except InvalidInputRequestError as error:
            return UpstreamResponse(error=jsonrpc.error_object(jsonrpc.METHOD_NOT_FOUND, str(error)))
        number = next(self._ids)
        answer: asyncio.Future[UpstreamResponse] = asyncio.get_running_loop().create_future()
        self._open[number] = _Open(question, answer)
        self._wake()
        try:
            return await answer
        finally:
            self._open.pop(number, None)

    def _wake(self) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)
        if self.work.done() and not self.work.cancelled():
            self.work.exception()  # perhaps nobody comes back for it


class PendingCalls:
    """Everything that is pending, by whose it is. `clock` is the time in seconds since the Unix epoch."""

    def __init__(self, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._keys = (key,)
        self._clock = clock
        self._of: dict[str, dict[str, _PendingCall[Any]]] = {}

    @staticmethod
    def concerns(request: Request) -> bool:
        """Whether a modern request has to go this way: its client can be asked, or it comes back with answers."""
        return _declares(request) or _state(request.params) is not None

    @staticmethod
    def may_ask(request: Request) -> bool:
        """Whether a modern request's client can be asked, and comes for the first time."""
        return _declares(request) and _state(request.params) is None

    @staticmethod
    def is_retry(request: Request) -> bool:
        """Whether a modern request comes back with a state of the gateway's."""
        state = _state(request.params)
        return state is not None and request_state.is_sealed(state)

    async def serve(
        self,
        principal: Principal,
        request: Request,
        notifications: NotificationFilter,
        begin: Begin[_Outcome],
        server_info: Raw,
    ) -> _Outcome:
        """Begin a request's work, or go on with what is pending, until it is done.

        Raises:
            InputRequiredOutcome: its server waits for the client.
            InvalidStateError: the `requestState` is not good for this request: -32602.
            InvalidAnswerError: an answer is none to its question: -32602.
            InvalidLevelError: the request names a log level that is none: -32602.
        """
        owner = f"{principal.workspace_id}/{principal.token_id}"
        binding = request_state.bind(owner, request.method, request.params)
        level = log_levels.requested(request.meta)
        pending: _PendingCall[_Outcome]
        state = _state(request.params)
        if state is not None:
            pending = self._taken_up(binding, state, request.params)
        else:
            declared = request.meta.get(CLIENT_CAPABILITIES_META_KEY)
            can = capabilities.for_upstream(declared, Era.MODERN, Era.LEGACY, bridged=True)
            pending = _PendingCall(begin, can, level)
        pending.notifications = notifications
        try:
            await pending.until_turn()
        except BaseException:
            pending.abandon()
            raise
        finally:
            pending.notifications = None
        if pending.work.done():
            return pending.work.result()
        raise InputRequiredOutcome(self._park(binding, pending, server_info))

    def close(self) -> None:
        """The relay stops: nobody comes back."""
        for of_token in list(self._of.values()):
            for pending in list(of_token.values()):
                pending.abandon()
        self._of.clear()

    def _park(self, binding: Binding, pending: _PendingCall[Any], server_info: Raw) -> Raw:
        of_token = self._of.setdefault(binding.principal, {})
        while len(of_token) >= MAX_PENDING:
            of_token.pop(next(iter(of_token))).abandon()
        of_token[pending.id] = pending
        pending.round += 1
        pending.expiry = asyncio.get_running_loop().call_later(PENDING_S, self._lapsed, binding.principal, pending)
        questions = pending.questions
        content = input_requests.park(f"{pending.id}.{pending.round}", questions)
        state = request_state.seal(self._keys, binding, content, self._clock() + PENDING_S)
        return input_requests.input_required(questions, state, server_info)

    def _taken_up(self, binding: Binding, state: str, params: Params) -> _PendingCall[Any]:
        """What is pending under a state, its server's questions answered as far as the client did."""
        content = input_requests.read_parked(request_state.unseal(self._keys, binding, state, self._clock()))
        call, _, number = content.call.rpartition(".")
        pending = self._of.get(binding.principal, {}).get(call)
        if pending is None or str(pending.round) != number:
            raise InvalidStateError("the requestState was used, or its call has ended: send the request anew, without")
        answers = [jsonrpc.decode_response(one) for one in input_requests.answered(content, params).responses]
        self._remove(binding.principal, pending)
        for answer in answers:
            if isinstance(answer.id, int):
                pending.answer(answer.id, UpstreamResponse(answer.result))
        return pending

    def _lapsed(self, owner: str, pending: _PendingCall[Any]) -> None:
        self._remove(owner, pending)
        pending.abandon()

    def _remove(self, owner: str, pending: _PendingCall[Any]) -> None:
        if pending.expiry is not None:
            pending.expiry.cancel()
        of_token = self._of.get(owner, {})
        of_token.pop(pending.id, None)
        if not of_token:
            self._of.pop(owner, None)


def _declares(request: Request) -> bool:
    declared = request.meta.get(CLIENT_CAPABILITIES_META_KEY)
    return declared is not None and bytes(declared) != b"{}"


def _state(params: Params) -> str | None:
    """The request's `requestState`; one that is no text is no state of anybody's."""
    value = params.get("requestState")
    if value is None:
        return None
    try:
        return jsonrpc.decode_string(value)
    except NO_JSON:
        return ""
