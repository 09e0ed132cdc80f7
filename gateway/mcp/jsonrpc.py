"""JSON-RPC 2.0 envelopes. What the gateway does not need to understand stays `Raw`: bytes in, the same bytes out."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS
from mcp_types.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import CallscopeError
from gateway.mcp.revisions import Era

T = TypeVar("T")
D = TypeVar("D")
Id = int | str
Params = dict[str, Raw]

EMPTY_OBJECT: Final = Raw(b"{}")
DECODE_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises: text that is no UTF-8 is found only when it is decoded, and so is what is nested too deeply."""


class InvalidParamsError(CallscopeError):
    """The params of a client's request are invalid: -32602."""


class Message(Struct, frozen=True):
    """Any JSON-RPC message, decoded as far as it is routed by."""

    jsonrpc: str = ""
    method: str | UnsetType = UNSET
    id: Id | UnsetType | None = UNSET
    params: Params | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class Response(Struct, frozen=True):
    """A message of which only the response's members matter."""

    id: Id | UnsetType | None = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class ErrorObject(Struct, frozen=True):
    """The `error` member; fields beyond these stay in its raw bytes."""

    code: int
    message: str = ""


encode: Final = msgspec.json.Encoder().encode
"""JSON of any value, `Raw` parts as they are."""
decode_message: Final = msgspec.json.Decoder(Message).decode
decode_response: Final = msgspec.json.Decoder(Response).decode
decode_params: Final = msgspec.json.Decoder(Params).decode
decode_string: Final = msgspec.json.Decoder(str).decode
decode_error: Final = msgspec.json.Decoder(ErrorObject).decode


def decode_or(decode: Callable[[Raw], T], value: Raw | None, default: D) -> T | D:
    """The decoded value, or `default` if there is none or it is of another form."""
    try:
        return decode(value) if value is not None else default
    except DECODE_ERRORS:
        return default


def raw(value: Any) -> Raw:
    """The value as JSON that is put into another value unchanged."""
    return Raw(encode(value))


def request(id: Id, method: str, params: dict[str, Any]) -> bytes:  # noqa: A002 - the member's name in JSON-RPC
    return encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: Params | None = None) -> bytes:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return encode(message)


def result(id: Id | None, value: Raw) -> bytes:  # noqa: A002 - the member's name in JSON-RPC
    """A successful response's bytes; `value` passes through untouched."""
    if type(id) is int:
        return b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (id, value)
    return encode({"jsonrpc": "2.0", "id": id, "result": value})


def error(id: Id | None, value: Raw) -> bytes:  # noqa: A002 - the member's name in JSON-RPC
    return encode({"jsonrpc": "2.0", "id": id, "error": value})


def error_object(code: int, message: str, data: Any = None) -> Raw:
    """The `error` member of a response that the gateway makes itself."""
    value: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        value["data"] = data
    return Raw(encode(value))


def code_of(error: Raw) -> int | None:
    """The code of a JSON-RPC error; None if it has none."""
    try:
        return decode_error(error).code
    except DECODE_ERRORS:
        return None


def http_status(era: Era, code: int) -> int:
    """The HTTP status of an error response: by the code in the modern era, 200 in the legacy one."""
    return ERROR_CODE_HTTP_STATUS.get(code, 200) if era is Era.MODERN else 200


# Names that other modules import from here beside what is defined here.
__all__ = ["INTERNAL_ERROR", "INVALID_PARAMS", "INVALID_REQUEST", "METHOD_NOT_FOUND", "PARSE_ERROR"]
