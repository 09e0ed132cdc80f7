"""What a server asks for while a legacy client's request runs: requests on the stream that answers that client.

A legacy server's own requests come by `Client.ask`. A modern server ends the request with `input_required`: the client
is asked for all of it, and the request is made again with the answers, until it is complete.

Source: specification 2025-11-25, client/*, basic/transports; 2026-07-28, basic/patterns/mrtr.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.errors import CallscopeError
from gateway.mcp import capabilities, era_bridge, input_requests, jsonrpc
from gateway.mcp.era_bridge import InvalidResultError, ResultType
from gateway.mcp.input_requests import InputRequest, InputRequired
from gateway.mcp.jsonrpc import Response
from gateway.relay.deadlines import CancelScope
from gateway.relay.responses import EventStream
from gateway.relay.sessions import LegacySession
from gateway.upstream.base import Client, UpstreamError, UpstreamRequest, UpstreamResponse

ANSWER_S: Final = 600.0
"""How long a client may take for an answer: behind it is a person."""
MAX_ROUNDS: Final = 32
_AGAIN_S: Final = 1.0
"""Between a round that asks for nothing and the next one."""
_KIND: Final = b'"input_required"'

Send = Callable[[UpstreamRequest], Awaitable[UpstreamResponse]]


class MissingCapabilityError(CallscopeError):
    """A server asks for what this client has not declared."""

    def __init__(self, needed: dict[str, Any]) -> None:
        super().__init__(f"the server needs a client that has declared {', '.join(sorted(needed))}")
        self.needed = needed


class ClientRequestSender:
    """Asks one legacy client, on the stream of one request. The request's own time stands still meanwhile."""

    __slots__ = ("_cancel_scope", "_session", "_stream")

    def __init__(self, session: LegacySession, stream: EventStream, cancel_scope: CancelScope) -> None:
        self._session = session
        self._stream = stream
        self._cancel_scope = cancel_scope

    @property
    def client(self) -> Client:
        """The client as an upstream sees it; one that takes no events cannot be asked."""
        can = self._session.capabilities if self._stream.possible else jsonrpc.EMPTY_OBJECT
        return Client(can, self.ask, self._session.log_level)

    async def ask(self, method: str, params: Raw) -> UpstreamResponse:
        """Send a server's request, and wait for the answer; in the place of one that does not come is an error."""
        question = InputRequest(method, jsonrpc.decode_params(params))
        request_id, answer = self._session.ask()
        try:
            await self._stream.event(input_requests.client_request(request_id, question))
            with self._cancel_scope.paused():
                async with asyncio.timeout(ANSWER_S):
                    response = await answer
            return UpstreamResponse(response.result, response.error)
        except TimeoutError:
            message = f"the client did not answer {method} within {ANSWER_S:g} s"
            return UpstreamResponse(error=jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, message))
        finally:
            self._session.asked(request_id)


async def run_input_rounds(send: Send, upstream_request: UpstreamRequest, client: Client) -> UpstreamResponse:
    """A modern server's answer to a legacy client's request: what it asks for on the way, the client is asked for.

    The upstream_request's phases are those of the first round up to its first byte, and of the last one from there on.

    Raises:
        UpstreamError: see `Upstream.request`; or it asks for what no server may, or without end.
        MissingCapabilityError: it asks for what the client did not declare.
        AnswerRefusedError, InvalidAnswerError: the client did not answer as it was asked.
    """
    reply = await send(upstream_request)
    again = upstream_request
    for _ in range(MAX_ROUNDS):
        required = _required(upstream_request.method, reply)
        if required is None:
            upstream_request.done_ns = again.done_ns
            upstream_request.http_status = again.http_status
            return reply
        upstream_request.done_ns = 0  # until it is complete, it is the server that is waited for
        answers = await _answers(required, client)
        again = _again(
            upstream_request, input_requests.retried(upstream_request.params, answers, required.request_state)
        )
        reply = await send(again)
    raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"asked for input in more than {MAX_ROUNDS} rounds")


async def _answers(required: InputRequired, client: Client) -> dict[str, Raw]:
    questions = required.questions
    if not questions:
        await asyncio.sleep(_AGAIN_S)
        return {}
    needed = input_requests.needed(questions.values(), capabilities.read_client(client.capabilities))
    if needed:
        raise MissingCapabilityError(needed)
    replies = await asyncio.gather(*(client.ask(one.method, _params(one)) for one in questions.values()))
    return {
        key: input_requests.client_answer(question, Response(result=reply.result, error=reply.error))
        for (key, question), reply in zip(questions.items(), replies, strict=True)
    }


def _params(question: InputRequest) -> Raw:
    return jsonrpc.raw(question.params) if question.params is not UNSET else jsonrpc.EMPTY_OBJECT


def _required(method: str, reply: UpstreamResponse) -> InputRequired | None:
    """What a reply asks for; None if it is complete, or an error."""
    if reply.error is not UNSET or reply.result is UNSET or _KIND not in bytes(reply.result):
        return None
    try:
        if era_bridge.result_type(method, reply.result) is not ResultType.INPUT_REQUIRED:
            return None
        return input_requests.read_required(reply.result)
    except InvalidResultError as error:
        kind = ErrorType.UPSTREAM_PROTOCOL_ERROR
        raise UpstreamError(kind, f"answered what is no result: {error}", response=bytes(reply.result)) from error


def _again(upstream_request: UpstreamRequest, params: dict[str, Any]) -> UpstreamRequest:
    return UpstreamRequest(
        upstream_request.method,
        params,
        meta=upstream_request.meta,
        name=upstream_request.name,
        traceparent=upstream_request.traceparent,
        tracestate=upstream_request.tracestate,
        notify=upstream_request.notify,
        repeatable=upstream_request.repeatable,
        token_id=upstream_request.token_id,
        client=upstream_request.client,
        param_lines=upstream_request.param_lines,
    )
