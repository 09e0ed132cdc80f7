"""An error of an upstream, for a client of whichever era: each era has codes that mean nothing to the other.

Source: specification 2026-07-28, basic/index "Error Codes" and server/tools "Error Handling"; 2025-11-25,
server/resources "Error Handling" and client/elicitation "URL Elicitation Required Error".
"""

from typing import Any, Final

import msgspec
from mcp_types.jsonrpc import (
    HEADER_MISMATCH,
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    UNSUPPORTED_PROTOCOL_VERSION,
    URL_ELICITATION_REQUIRED,
)
from msgspec import Raw, Struct

from gateway.mcp import jsonrpc
from gateway.mcp.era_bridge import InvalidResultError
from gateway.mcp.jsonrpc import NO_JSON, ErrorObject, Response
from gateway.mcp.revisions import Era

RESOURCE_NOT_FOUND: Final = -32002
"""The legacy revisions' code for a resource that is not there; 2026-07-28 has -32602 for it and retired this one."""

_OF_THE_GATEWAY: Final = (HEADER_MISMATCH, UNSUPPORTED_PROTOCOL_VERSION)
"""What a server answers to headers and a version that are the gateway's own: no client can do better."""


class _Elicitation(Struct, frozen=True):
    message: str = ""
    url: str = ""


class _Elicitations(Struct, frozen=True):
    elicitations: tuple[_Elicitation, ...] = ()


class _UrlRequired(Struct, frozen=True):
    data: _Elicitations = _Elicitations()


class _RequiredCapabilities(Struct, frozen=True):
    requiredCapabilities: Raw = jsonrpc.EMPTY_OBJECT  # noqa: N815 - the member's name in MCP


class _CapabilityMissing(Struct, frozen=True):
    data: _RequiredCapabilities = _RequiredCapabilities()


_decode_url_required: Final = msgspec.json.Decoder(_UrlRequired).decode
_decode_capability_missing: Final = msgspec.json.Decoder(_CapabilityMissing).decode


def error(method: str, client: Era, upstream: Era, value: Raw) -> Response:
    """An upstream's error for a client: a `Response` without id that has a `result` or an `error`, never both.

    Unlike a result, an error may need translation between modern peers as well. One that needs none is the same object.

    Raises:
        InvalidResultError: it is no error object of JSON-RPC.
    """
    try:
        seen = jsonrpc.decode_error(value)
    except NO_JSON as error:
        raise InvalidResultError(f"the error is none of JSON-RPC's: {error}") from error
    if client is Era.MODERN:
        return _to_modern(method, upstream, seen, value)
    if upstream is Era.MODERN:
        return _to_legacy(method, seen, value)
    return Response(error=value)


def _to_modern(method: str, upstream: Era, seen: ErrorObject, value: Raw) -> Response:
    if seen.code == RESOURCE_NOT_FOUND:
        return _recoded(value, jsonrpc.INVALID_PARAMS)
    if seen.code == URL_ELICITATION_REQUIRED:
        if method == "tools/call":
            return _told(_visit(seen.message, value), {"resultType": "complete"})
        return _recoded(value, jsonrpc.INVALID_PARAMS)
    if seen.code in _OF_THE_GATEWAY:
        return _refused(seen, value)
    if seen.code == MISSING_REQUIRED_CLIENT_CAPABILITY and upstream is Era.LEGACY:
        return _refused(seen, value)  # legacy servers have no such word: the client would act on what it does not mean
    return Response(error=value)


def _to_legacy(method: str, seen: ErrorObject, value: Raw) -> Response:
    if seen.code in _OF_THE_GATEWAY:
        return _refused(seen, value)
    if seen.code == MISSING_REQUIRED_CLIENT_CAPABILITY:
        if method == "tools/call":
            return _told(_incapable(seen.message, value), {})
        return _refused(seen, value)
    return Response(error=value)


def _refused(seen: ErrorObject, value: Raw) -> Response:
    message = f"the server refused what the gateway sent it (code {seen.code}): {seen.message}"
    return Response(error=jsonrpc.error_object(jsonrpc.INTERNAL_ERROR, message, {"upstream": value}))


def _recoded(value: Raw, code: int) -> Response:
    return Response(error=jsonrpc.raw({**jsonrpc.decode_params(value), "code": code}))


def _told(text: str, members: dict[str, Any]) -> Response:
    """A tool's failure as a result: a model can read it, where an error would only end its turn."""
    return Response(result=jsonrpc.raw({**members, "content": [{"type": "text", "text": text}], "isError": True}))


def _visit(message: str, value: Raw) -> str:
    try:
        asked = _decode_url_required(value).data.elicitations
    except NO_JSON:
        asked = ()
    pages = [f"{one.message}: {one.url}".removeprefix(": ") for one in asked if one.url]
    return "\n".join([message or "the server needs a page to be opened, then the call to be made again", *pages])


def _incapable(message: str, value: Raw) -> str:
    try:
        needed = bytes(_decode_capability_missing(value).data.requiredCapabilities).decode()
    except NO_JSON:
        needed = "that are not named"
    return f"{message or 'the tool cannot serve this client'} (needed client capabilities: {needed})"
