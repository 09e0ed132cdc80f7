"""Requests of a server to a client while a call runs (elicitation, sampling, roots), bridged between the eras.

A legacy server sends requests of its own while the call runs. A modern one ends the call with `input_required`, and
the client sends it again with the responses.

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
"""The requests that a server may send to a client, in both eras."""
_CANCELLED: Final = Raw(b'{"action":"cancel"}')
_OF_LEGACY: Final = frozenset({"_meta", "task"})
"""Params of a legacy server's request that concern only the gateway, which is its client."""


class InvalidInputResponseError(InvalidParamsError):
    """A client's response does not fit the request: -32602."""


class InputRefusedError(CallscopeError):
    """A client refuses a request for which the modern era has no refusal: the call fails with this message."""


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
        """By the server's own keys; empty if the client only has to call again."""
        return self.input_requests or {}


_NO_REASON: Final = jsonrpc.ErrorObject(0, "it gave no reason")
_decode_required: Final = msgspec.json.Decoder(InputRequired).decode
_decode_any: Final = msgspec.json.Decoder().decode


def missing_capabilities(requests: Iterable[InputRequest], can: ClientCapabilities) -> dict[str, Any]:
    """What a client would have to declare for these, as `requiredCapabilities` of -32021; empty if nothing is missing.

    Raises:
        InvalidInputRequestError: one is not a request that a server may send to a client.
    """
    lacking: dict[str, Any] = {}
    for request in requests:
        params = jsonrpc.raw(request.params) if request.params is not UNSET else None
        for kind, members in (missing_capability(request.method, params, can) or {}).items():
            lacking[kind] = {**lacking.get(kind, {}), **members}
    return lacking


# -- a legacy client with a stream, a modern server


def read_required(value: Raw) -> InputRequired:
    """Decode a result whose type is `input_required`.

    Raises:
        InvalidResultError: it has no request and no state, or a request that no server may send.
    """
    try:
        required = _decode_required(value)
    except DECODE_ERRORS as error:
        raise InvalidResultError(f"the 'input_required' result cannot be read: {error}") from error
    if required.input_requests is UNSET and required.request_state is UNSET:
        raise InvalidResultError("the 'input_required' result has neither 'inputRequests' nor 'requestState'")
    for request in required.requests.values():
        if request.method not in METHODS:
            raise InvalidResultError(f"the server requests {request.method[:64]!r}, which no server may")
    return required


def to_client_request(request_id: Id, request: InputRequest) -> bytes:
    """The request to a legacy client. By URL it needs an `elicitationId`, which only that era has."""
    params: dict[str, Any] = dict(request.params or {})
    if request.method == ELICITATION and params.get("mode") == Raw(b'"url"'):
        params.setdefault("elicitationId", str(request_id))
    return jsonrpc.request(request_id, request.method, params)


def from_client_response(request: InputRequest, response: Response) -> Raw:
    """A legacy client's response, for `inputResponses`; an error to an elicitation becomes its `cancel`.

    Raises:
        InputRefusedError: the client answered another request with an error.
        InvalidInputResponseError: its result does not fit this request.
    """
    if response.result is not UNSET:
        _validate(request.method, response.result)
        return response.result
    if request.method == ELICITATION:
        return _CANCELLED
    error = jsonrpc.decode_or(jsonrpc.decode_error, response.error or None, _NO_REASON)
    raise InputRefusedError(f"the client refused {request.method}: {error.message}")


def retry_params(params: Mapping[str, Any], responses: Mapping[str, Raw], state: str | UnsetType) -> dict[str, Any]:
    """The params of a request that is sent again with the responses, without `_meta`."""
    again = {name: value for name, value in params.items() if name not in RETRY_MEMBERS}
    if responses:
        again["inputResponses"] = dict(responses)
    if state is not UNSET:
        again["requestState"] = state
    return again


# -- a modern client, a legacy server


def from_server_request(method: str, params: Params) -> InputRequest:
    """A legacy server's request as an item of `inputRequests`.

    Raises:
        InvalidInputRequestError: it is not a request that a server may send to a client.
    """
    if method not in METHODS:
        raise InvalidInputRequestError(f"{method[:64]!r} is not a request that a server may send to a client")
    kept = {name: value for name, value in params.items() if name not in _OF_LEGACY}
    return InputRequest(method, kept if kept or method != "roots/list" else UNSET)


def input_required(requests: Mapping[Id, InputRequest], state: str, server_info: Raw | None = None) -> Raw:
    """The `input_required` result for a modern client; `state` comes back with its responses."""
    members: dict[str, Any] = {
        "resultType": "input_required",
        "inputRequests": {_key(one, request): request for one, request in requests.items()},
        "requestState": state,
    }
    if server_info is not None:
        members["_meta"] = {SERVER_INFO_META_KEY: server_info}
    return jsonrpc.raw(members)


def input_responses(requests: Mapping[Id, InputRequest], params: Params) -> dict[Id, Raw]:
    """The responses in a retry to a legacy server's requests, by their ids. Unknown keys are ignored.

    Raises:
        InvalidInputResponseError: `inputResponses` is not an object, or a response does not fit its request.
    """
    try:
        given = jsonrpc.decode_params(params["inputResponses"]) if "inputResponses" in params else {}
    except DECODE_ERRORS as error:
        raise InvalidInputResponseError(f"'params.inputResponses' must be an object: {error}") from error
    found: dict[Id, Raw] = {}
    for request_id, request in requests.items():
        response = given.get(_key(request_id, request))
        if response is not None:
            _validate(request.method, response)
            found[request_id] = response
    return found


def _key(request_id: Id, request: InputRequest) -> str:
    """Unique among all requests of a server, as its ids are; 1 and "1" are two ids."""
    return f"{request.method} {jsonrpc.encode(request_id).decode()}"


def _validate(method: str, response: Raw) -> None:
    try:
        validate_client_result(method, LATEST_HANDSHAKE_VERSION, _decode_any(response))
    except DECODE_ERRORS as error:
        raise InvalidInputResponseError(f"the response to {method} cannot be decoded: {error}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the response"
        raise InvalidInputResponseError(f"the response to {method} is invalid: {where}: {first['msg']}") from error
