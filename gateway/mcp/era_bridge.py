"""Results and errors of an upstream, translated for a client of the other era. All else passes byte for byte.

Source: specification 2026-07-28, basic/index "Responses" and "Error Codes", server/utilities/caching, server/tools;
2025-11-25, server/tools, server/resources "Error Handling", client/elicitation "URL Elicitation Required Error".
"""

from enum import StrEnum
from typing import Any, Final

import msgspec
from mcp_types import SERVER_INFO_META_KEY
from mcp_types.jsonrpc import (
    HEADER_MISMATCH,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    UNSUPPORTED_PROTOCOL_VERSION,
    URL_ELICITATION_REQUIRED,
)
from mcp_types.methods import CACHEABLE_METHODS, INPUT_REQUIRED_METHODS
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import CallscopeError
from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import DECODE_ERRORS, ErrorObject, Params, Response
from gateway.mcp.revisions import Era

_COMPLETE: Final = Raw(b'"complete"')
_NEVER_FRESH: Final[Params] = {"ttlMs": Raw(b"0"), "cacheScope": Raw(b'"private"')}
"""For a modern client, of a result without cache hints. Lists depend on the token, so they are never shared."""
_MODERN_MEMBERS: Final = ("resultType", *_NEVER_FRESH)


class InvalidResultError(CallscopeError):
    """An upstream answered with what is no result or no error of its protocol: an `upstream_protocol_error`."""


class ResultType(StrEnum):
    """What a modern result is (2026-07-28, basic/index "Responses"); an absent `resultType` is `complete`."""

    COMPLETE = "complete"
    INPUT_REQUIRED = "input_required"


class _Tagged(Struct, frozen=True):
    resultType: str = "complete"  # noqa: N815 - the member's name in MCP


class _Schema(Struct, frozen=True):
    type: Raw = Raw()


_decode_tagged: Final = msgspec.json.Decoder(_Tagged).decode
_decode_items: Final = msgspec.json.Decoder(list[Raw]).decode
_decode_schema: Final = msgspec.json.Decoder(_Schema).decode


def result_type(method: str, value: Raw) -> ResultType:
    """What a modern upstream's result is.

    Raises:
        InvalidResultError: its `resultType` is unknown, or not valid for this method.
    """
    try:
        tag = _decode_tagged(value).resultType
        found = ResultType(tag)
    except DECODE_ERRORS as error:
        raise InvalidResultError(f"the result is no object with a text for 'resultType': {error}") from error
    except ValueError as error:
        raise InvalidResultError(f"the result's 'resultType' is {tag[:64]!r}, which is not known") from error
    if found is ResultType.INPUT_REQUIRED and method not in INPUT_REQUIRED_METHODS:
        raise InvalidResultError(f"{method} cannot be answered with 'input_required'")
    return found


def result(method: str, client: Era, upstream: Era, value: Raw, server_info: Raw | None = None) -> Raw:
    """An upstream's complete result for a client; between peers of one era it is the same object.

    `server_info` is the gateway's own, for `_meta` of what a modern client gets.

    Raises:
        InvalidResultError: it is not an object, or it is `input_required`, which `input_requests` translates.
    """
    if client is upstream:
        return value
    members = _object(value, "the result")
    if client is Era.MODERN:
        return _to_modern(method, members, server_info)
    if result_type(method, value) is ResultType.INPUT_REQUIRED:
        raise InvalidResultError("the result asks for input although this client declares no such capability")
    return _to_legacy(method, members)


def _to_modern(method: str, members: Params, server_info: Raw | None) -> Raw:
    for name in _MODERN_MEMBERS:
        members.pop(name, None)
    made: dict[str, Any] = {"resultType": _COMPLETE}
    if method in CACHEABLE_METHODS:
        made.update(_NEVER_FRESH)
    if method == "tools/list" and "tools" in members:
        made["tools"] = _items(members.pop("tools"), Era.MODERN, Era.LEGACY)
    made.update(members)
    if server_info is not None:
        made["_meta"] = {**_meta(members), SERVER_INFO_META_KEY: server_info}
    return jsonrpc.raw(made)


def _to_legacy(method: str, members: Params) -> Raw:
    kept: dict[str, Any] = {name: value for name, value in members.items() if name not in _MODERN_MEMBERS}
    meta = _meta(members)
    if SERVER_INFO_META_KEY in meta:
        del meta[SERVER_INFO_META_KEY]
        del kept["_meta"]
        if meta:
            kept["_meta"] = meta
    if method == "tools/list" and "tools" in kept:
        kept["tools"] = _items(kept["tools"], Era.LEGACY, Era.MODERN)
    if method == "tools/call" and not bytes(kept.get("structuredContent", b"{")).startswith(b"{"):
        _unstructure(kept)
    return jsonrpc.raw(kept)


def _unstructure(members: dict[str, Any]) -> None:
    """A legacy result's `structuredContent` is an object. Any other becomes text if there is no other content."""
    structure = bytes(members.pop("structuredContent")).decode("utf-8", "replace")
    if structure != "null" and bytes(members.get("content", b"[]")).translate(None, b" \t\r\n") == b"[]":
        members["content"] = [{"type": "text", "text": structure}]


def tool(client: Era, upstream: Era, listing: Raw) -> Raw:
    """One item of `tools/list` for a client; between peers of one era it is the same object.

    A modern client gets no `execution` (tasks were removed), a legacy client only an `outputSchema` of type object.

    Raises:
        InvalidResultError: it is no object.
    """
    if client is upstream:
        return listing
    members = _object(listing, "a listed tool")
    if client is Era.MODERN:
        unknown = "execution" in members
        members.pop("execution", None)
    else:
        unknown = "outputSchema" in members and not _is_of_object(members["outputSchema"])
        if unknown:
            del members["outputSchema"]
    return jsonrpc.raw(members) if unknown else listing


def _items(value: Raw, client: Era, upstream: Era) -> list[Raw]:
    try:
        return [tool(client, upstream, item) for item in _decode_items(value)]
    except DECODE_ERRORS as error:
        raise InvalidResultError(f"the result's 'tools' is no list: {error}") from error


def _is_of_object(schema: Raw) -> bool:
    try:
        return bytes(_decode_schema(schema).type) == b'"object"'
    except DECODE_ERRORS:
        return False


def _meta(members: Params) -> Params:
    return jsonrpc.decode_or(jsonrpc.decode_params, members.get("_meta"), {})


def _object(value: Raw, what: str) -> Params:
    try:
        return jsonrpc.decode_params(value)
    except DECODE_ERRORS as error:
        raise InvalidResultError(f"{what} is no object: {error}") from error


# -- errors: each era has codes that mean nothing to the other

RESOURCE_NOT_FOUND: Final = -32002
"""The legacy revisions' code for a resource that is not there; 2026-07-28 has -32602 for it and retired this one."""

_GATEWAY_FAULTS: Final = (HEADER_MISMATCH, UNSUPPORTED_PROTOCOL_VERSION)
"""What a server answers to headers and a version that are the gateway's own: no client can do better."""


class _UrlElicitation(Struct, frozen=True):
    message: str = ""
    url: str = ""


class _ErrorData(Struct, frozen=True):
    elicitations: tuple[_UrlElicitation, ...] = ()
    requiredCapabilities: Raw | UnsetType = UNSET  # noqa: N815 - the member's name in MCP


class _ErrorWithData(Struct, frozen=True):
    data: _ErrorData = _ErrorData()


_decode_error_data: Final = msgspec.json.Decoder(_ErrorWithData).decode
_NO_DATA: Final = _ErrorWithData()


def error(method: str, client: Era, upstream: Era, value: Raw) -> Response:
    """An upstream's error for a client: a `Response` without id that has a `result` or an `error`, never both.

    Unlike a result, an error may need translation between modern peers as well. Otherwise it stays the same object.

    Raises:
        InvalidResultError: it is no error object of JSON-RPC.
    """
    try:
        seen = jsonrpc.decode_error(value)
    except DECODE_ERRORS as error:
        raise InvalidResultError(f"the error is not a JSON-RPC error object: {error}") from error
    if client is Era.MODERN:
        return _error_to_modern(method, upstream, seen, value)
    if upstream is Era.MODERN:
        return _error_to_legacy(method, seen, value)
    return Response(error=value)


def _error_to_modern(method: str, upstream: Era, seen: ErrorObject, value: Raw) -> Response:
    if seen.code == URL_ELICITATION_REQUIRED and method == "tools/call":
        return Response(result=failed_result(_pages_to_open(seen.message, value), Era.MODERN))
    if seen.code in (RESOURCE_NOT_FOUND, URL_ELICITATION_REQUIRED):
        return Response(error=jsonrpc.raw({**jsonrpc.decode_params(value), "code": jsonrpc.INVALID_PARAMS}))
    # In the legacy era -32021 has no meaning: a modern client would act on something that the server did not say.
    unknown = seen.code == MISSING_REQUIRED_CLIENT_CAPABILITY and upstream is Era.LEGACY
    return _gateway_fault(seen, value) if unknown or seen.code in _GATEWAY_FAULTS else Response(error=value)


def _error_to_legacy(method: str, seen: ErrorObject, value: Raw) -> Response:
    if seen.code == MISSING_REQUIRED_CLIENT_CAPABILITY and method == "tools/call":
        return Response(result=failed_result(_missing_capabilities(seen.message, value), Era.LEGACY))
    unknown = seen.code in (MISSING_REQUIRED_CLIENT_CAPABILITY, *_GATEWAY_FAULTS)
    return _gateway_fault(seen, value) if unknown else Response(error=value)


def _gateway_fault(seen: ErrorObject, value: Raw) -> Response:
    message = f"the server rejected the request of the gateway (code {seen.code}): {seen.message}"
    return Response(error=jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, message, {"upstream": value}))


def failed_result(text: str, client: Era) -> Raw:
    """A tool's failure as a result: a model can read it, whereas an error ends its turn."""
    kind = {"resultType": "complete"} if client is Era.MODERN else {}
    return jsonrpc.raw({**kind, "content": [{"type": "text", "text": text}], "isError": True})


def _pages_to_open(message: str, value: Raw) -> str:
    elicitations = jsonrpc.decode_or(_decode_error_data, value, _NO_DATA).data.elicitations
    pages = [f"{one.message}: {one.url}".removeprefix(": ") for one in elicitations if one.url]
    return "\n".join([message or "the server needs a page to be opened, then the call to be made again", *pages])


def _missing_capabilities(message: str, value: Raw) -> str:
    needed = jsonrpc.decode_or(_decode_error_data, value, _NO_DATA).data.requiredCapabilities
    names = bytes(needed).decode("utf-8", "replace") if needed is not UNSET else "not named"
    return f"{message or 'the tool cannot serve this client'} (needed client capabilities: {names})"
