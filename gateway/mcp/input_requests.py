"""What a server asks a client for in the midst of a request, carried between the eras, either way.

A legacy server sends requests of its own (`elicitation/create`, `sampling/createMessage`, `roots/list`) while a call
runs; a modern one ends the call with `input_required`, and the client repeats it with the answers.

Source: specification 2026-07-28, basic/patterns/mrtr; 2025-11-25, client/elicitation, client/sampling, client/roots.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
import pydantic
from mcp_types import SERVER_INFO_META_KEY
from mcp_types.methods import validate_client_result
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import CallscopeError
from gateway.mcp import jsonrpc
from gateway.mcp.capabilities import ClientCapabilities, InvalidInputRequestError, missing_capability
from gateway.mcp.era_bridge import InvalidResultError
from gateway.mcp.jsonrpc import DECODE_ERRORS, Id, InvalidParamsError, Params, Response
from gateway.mcp.request_state import RETRY_MEMBERS
from gateway.mcp.revisions import LATEST_HANDSHAKE_VERSION

ELICITATION: Final = "elicitation/create"
METHODS: Final = frozenset({ELICITATION, "sampling/createMessage", "roots/list"})
"""What a server may ask a client for, in both eras."""
_CANCELLED: Final = Raw(b'{"action":"cancel"}')
_OF_LEGACY: Final = frozenset({"_meta", "task"})
"""Params of a legacy server's request that are between it and the gateway, which is its client."""


class InvalidInputResponseError(InvalidParamsError):
    """A client's answer is none to what it was asked: -32602."""


class InputRefusedError(CallscopeError):
    """A client will not answer, and the question has no word for that: the call fails with this message."""


class InputRequest(Struct, frozen=True, omit_defaults=True):
    """One request to a client without its envelope: an item of `inputRequests`."""

    method: str
    params: Params | UnsetType = UNSET


class InputRequired(Struct, frozen=True, rename="camel"):
    """A modern server's `input_required` result."""

    input_requests: dict[str, InputRequest] | UnsetType = UNSET
    request_state: str | UnsetType = UNSET

    @property
    def requests(self) -> dict[str, InputRequest]:
        """What the client is asked, by the server's own keys; empty if it only has to call again."""
        return self.input_requests or {}


_decode_required: Final = msgspec.json.Decoder(InputRequired).decode
_decode_any: Final = msgspec.json.Decoder().decode


def missing_capabilities(questions: Iterable[InputRequest], can: ClientCapabilities) -> dict[str, Any]:
    """What a client would have to declare to be asked all this, as `requiredCapabilities` of -32021; empty if it does.

    Raises:
        InvalidInputRequestError: one is nothing that a server may ask a client.
    """
    lacking: dict[str, Any] = {}
    for question in questions:
        params = jsonrpc.raw(question.params) if question.params is not UNSET else None
        for kind, members in (missing_capability(question.method, params, can) or {}).items():
            lacking[kind] = {**lacking.get(kind, {}), **members}
    return lacking


# -- a legacy client with a stream, a modern server


def read_required(value: Raw) -> InputRequired:
    """A result of which `translation.result_type` says `input_required`.

    Raises:
        InvalidResultError: it asks for nothing, or for what no server may ask.
    """
    try:
        required = _decode_required(value)
    except DECODE_ERRORS as error:
        raise InvalidResultError(f"the 'input_required' result cannot be read: {error}") from error
    if required.input_requests is UNSET and required.request_state is UNSET:
        raise InvalidResultError("the 'input_required' result has neither 'inputRequests' nor 'requestState'")
    for question in required.requests.values():
        if question.method not in METHODS:
            raise InvalidResultError(f"the server asks for {question.method[:64]!r}, which no server may")
    return required


def to_client_request(request_id: Id, question: InputRequest) -> bytes:
    """The request to a legacy client; what leads to a page needs an `elicitationId`, which only that era has."""
    params: dict[str, Any] = dict(question.params or {})
    if question.method == ELICITATION and params.get("mode") == Raw(b'"url"'):
        params.setdefault("elicitationId", str(request_id))
    return jsonrpc.request(request_id, question.method, params)


def from_client_response(question: InputRequest, response: Response) -> Raw:
    """A legacy client's answer, for `inputResponses`; an error to an elicitation is its `cancel`.

    Raises:
        InputRefusedError: the client answered anything else with an error.
        InvalidInputResponseError: its result is none to this question.
    """
    if response.result is not UNSET:
        _validate(question.method, response.result)
        return response.result
    if question.method == ELICITATION:
        return _CANCELLED
    try:
        why = jsonrpc.decode_error(response.error if response.error is not UNSET else b"").message
    except DECODE_ERRORS:
        why = "it did not say why"
    raise InputRefusedError(f"the client refused {question.method}: {why}")


def retry_params(params: Mapping[str, Any], answers: Mapping[str, Raw], state: str | UnsetType) -> dict[str, Any]:
    """The params of a request made again with what its server asked for, without `_meta`."""
    again = {name: value for name, value in params.items() if name not in RETRY_MEMBERS}
    if answers:
        again["inputResponses"] = dict(answers)
    if state is not UNSET:
        again["requestState"] = state
    return again


# -- a modern client, a legacy server


def from_server_request(method: str, params: Params) -> InputRequest:
    """A legacy server's request as a question to a modern client.

    Raises:
        InvalidInputRequestError: it is nothing that a server may ask a client.
    """
    if method not in METHODS:
        raise InvalidInputRequestError(f"{method[:64]!r} is nothing that a server may ask a client for")
    kept = {name: value for name, value in params.items() if name not in _OF_LEGACY}
    return InputRequest(method, kept if kept or method != "roots/list" else UNSET)


def input_required(asked: Mapping[Id, InputRequest], state: str, server_info: Raw | None = None) -> Raw:
    """The result that asks a modern client for input; `state` comes back with its answers."""
    members: dict[str, Any] = {
        "resultType": "input_required",
        "inputRequests": {_key(one, question): question for one, question in asked.items()},
        "requestState": state,
    }
    if server_info is not None:
        members["_meta"] = {SERVER_INFO_META_KEY: server_info}
    return jsonrpc.raw(members)


def input_responses(asked: Mapping[Id, InputRequest], params: Params) -> dict[Id, Raw]:
    """What a retry answers to a legacy server's requests, by their ids. Keys that nobody asked for are ignored.

    Raises:
        InvalidInputResponseError: `inputResponses` is no object, or an answer does not fit its request.
    """
    try:
        given = jsonrpc.decode_params(params["inputResponses"]) if "inputResponses" in params else {}
    except DECODE_ERRORS as error:
        raise InvalidInputResponseError(f"'params.inputResponses' must be an object: {error}") from error
    found: dict[Id, Raw] = {}
    for request_id, question in asked.items():
        answer = given.get(_key(request_id, question))
        if answer is not None:
            _validate(question.method, answer)
            found[request_id] = answer
    return found


def _key(request_id: Id, question: InputRequest) -> str:
    """Unique among a server's requests of all rounds, for its ids are; 1 and "1" are two."""
    return f"{question.method} {jsonrpc.encode(request_id).decode()}"


def _validate(method: str, answer: Raw) -> None:
    try:
        validate_client_result(method, LATEST_HANDSHAKE_VERSION, _decode_any(answer))
    except DECODE_ERRORS as error:
        raise InvalidInputResponseError(f"the answer to {method} cannot be read: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the answer"
        raise InvalidInputResponseError(f"the answer to {method} is none: {where}: {first['msg']}") from error
