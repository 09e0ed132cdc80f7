"""Requests from a server to a legacy client, sent on the stream of the client's own request.

A legacy server sends them itself. A modern server ends the request with `input_required`: the relay asks the client for
each input and sends the request again with the answers, until the result is complete.

Source: specification 2025-11-25, client/*, basic/transports; 2026-07-28, basic/patterns/mrtr.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.errors import CallscopeError
from gateway.mcp import capabilities, era_bridge, input_requests, jsonrpc
from gateway.mcp.era_bridge import InvalidResultError, ResultType
from gateway.mcp.input_requests import InputRequest, InputRequired
from gateway.mcp.jsonrpc import Response
from gateway.mcp.revisions import Era
from gateway.relay.deadlines import CancelScope
from gateway.relay.responses import EventStream
from gateway.relay.sessions import LegacySession
from gateway.upstream.base import Client, UpstreamError, UpstreamRequest, UpstreamResponse

ANSWER_S: Final = 600.0
"""How long a client may take for an answer: a person may have to type it."""
MAX_ROUNDS: Final = 32
_STATE_ONLY_PAUSE_S: Final = 1.0
"""Before a request is sent again whose server asked for no input, only for another round."""

SendRequest = Callable[[UpstreamRequest], Awaitable[UpstreamResponse]]


class MissingCapabilityError(CallscopeError):
    """A server asks for input of a kind that this client has not declared."""

    def __init__(self, needed: dict[str, Any]) -> None:
        super().__init__(f"the server needs a client that has declared {', '.join(sorted(needed))}")
        self.needed = needed


def client_on_stream(session: LegacySession, stream: EventStream, cancel_scope: CancelScope) -> Client:
    """A session's client as an upstream sees it; one that accepts no event stream declares nothing.

    The time limit of the client's request pauses while the client is asked.
    """

    async def ask(method: str, params: Raw) -> UpstreamResponse:
        request_id, answer = session.open_request()
        try:
            request = InputRequest(method, jsonrpc.decode_params(params))
            await stream.event(input_requests.to_client_request(request_id, request))
            with cancel_scope.paused():
                async with asyncio.timeout(ANSWER_S):
                    response = await answer
            return UpstreamResponse(response.result, response.error)
        except TimeoutError:
            message = f"the client did not answer {method} within {ANSWER_S:g} s"
            return UpstreamResponse(error=jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, message))
        finally:
            session.close_request(request_id)

    declared = session.capabilities if stream.possible else jsonrpc.EMPTY_OBJECT
    return Client(declared, ask, session.log_level)


async def send_until_complete(send: SendRequest, upstream_request: UpstreamRequest) -> UpstreamResponse:
    """Send a legacy client's request; the client answers what a modern server asks for, round after round.

    The phases of `upstream_request` are those of the first round up to its first byte, and of the last one after it.

    Raises:
        UpstreamError: see `Upstream.request`; or the server asks for what no server may, or without end.
        MissingCapabilityError: the server asks for what the client did not declare.
        InputRefusedError, InvalidInputResponseError: the client gave no valid answer.
    """
    current, client = upstream_request, upstream_request.client
    reply = await send(current)
    for _ in range(MAX_ROUNDS):
        required = _input_required(upstream_request.method, reply) if client is not None else None
        if client is None or required is None:
            upstream_request.done_ns = current.done_ns
            upstream_request.http_status = current.http_status
            return reply
        upstream_request.done_ns = 0  # the server has not done its work before the result is complete
        answers = await _ask_all(required, client)
        params = input_requests.retry_params(upstream_request.params, answers, required.request_state)
        current = msgspec.structs.replace(upstream_request, params=params)
        current.reset_phases()
        reply = await send(current)
    raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, f"asked for input in more than {MAX_ROUNDS} rounds")


async def _ask_all(required: InputRequired, client: Client) -> dict[str, Raw]:
    """The client's responses to a round's input requests, by the server's keys."""
    requests = required.requests
    if not requests:
        await asyncio.sleep(_STATE_ONLY_PAUSE_S)
        return {}
    needed = input_requests.missing_capabilities(requests.values(), capabilities.read_client(client.capabilities))
    if needed:
        raise MissingCapabilityError(needed)
    replies = await asyncio.gather(
        *(client.ask(one.method, jsonrpc.raw(one.params or {})) for one in requests.values())
    )
    return {
        key: input_requests.from_client_response(request, Response(result=reply.result, error=reply.error))
        for (key, request), reply in zip(requests.items(), replies, strict=True)
    }


def _input_required(method: str, reply: UpstreamResponse) -> InputRequired | None:
    """What a reply asks for; None if it is complete or an error."""
    if reply.era is not Era.MODERN or reply.result is UNSET:
        return None
    try:
        if era_bridge.result_type(method, reply.result) is not ResultType.INPUT_REQUIRED:
            return None
        return input_requests.read_required(reply.result)
    except InvalidResultError as error:
        kind = ErrorType.UPSTREAM_PROTOCOL_ERROR
        raise UpstreamError(kind, f"answered with an invalid result: {error}", response=bytes(reply.result)) from error
