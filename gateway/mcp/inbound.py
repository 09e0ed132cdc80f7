"""One POST of a client: bytes and headers in, a request, a notification or a rejection out.

Source: specification 2026-07-28, basic/index and streamable-http, "Sending Messages" and "Standard headers"
(requirements M2-M10 of the modern era); JSON-RPC 2.0, sections 4 to 6.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec
from mcp.shared.inbound import NAME_BEARING_METHODS, InboundLadderRejection, classify_inbound_request
from mcp_types import CLIENT_INFO_META_KEY
from msgspec import UNSET, Raw

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import Id, Params
from gateway.mcp.revisions import ASSUMED_LEGACY, Era, era_of

_NO_PARAMS: Final[Params] = {}
_NO_META: Final[Params] = {}
_decode_object: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Request(NamedTuple):
    """A request that may be served; `meta` is its `params._meta`, undecoded."""

    id: Id
    method: str
    params: Params
    meta: Params
    era: Era
    version: str
    client_name: str | None = None
    client_version: str | None = None


class Notification(NamedTuple):
    """A message that gets no answer: a notification, or a legacy client's response."""

    method: str
    params: Params
    era: Era


class Rejection(NamedTuple):
    """Why a message is not served: an HTTP status and the members of a JSON-RPC error."""

    status: int
    id: Id | None
    code: int
    message: str
    data: Any = None


def read(body: bytes, headers: Mapping[str, str]) -> Request | Notification | Rejection:
    """Validate a POST's body against its headers (names in lower case)."""
    version = headers.get("mcp-protocol-version")
    era = era_of(version)
    try:
        message = jsonrpc.decode_message(body)
    except msgspec.ValidationError as error:
        return Rejection(400, None, jsonrpc.INVALID_REQUEST, _why_invalid(body, error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejection(400, None, jsonrpc.PARSE_ERROR, f"the body is no JSON: {error}")
    request_id = message.id
    if message.jsonrpc != "2.0" or request_id is None:
        known = request_id if request_id is not UNSET else None
        wrong = "'jsonrpc' must be \"2.0\"" if message.jsonrpc != "2.0" else "'id' must not be null"
        return Rejection(400, known, jsonrpc.INVALID_REQUEST, f"the body is no JSON-RPC 2.0 message: {wrong}")
    method = message.method
    if method is UNSET:
        if era is Era.LEGACY and request_id is not UNSET and (message.result, message.error) != (UNSET, UNSET):
            return Notification("", _NO_PARAMS, era)
        return Rejection(400, None, jsonrpc.INVALID_REQUEST, "the body is neither a request nor a notification")
    params = message.params if message.params is not UNSET else _NO_PARAMS
    if request_id is UNSET:
        return Notification(method, params, era)
    try:
        meta = jsonrpc.decode_params(params["_meta"]) if "_meta" in params else _NO_META
    except msgspec.MsgspecError:
        return Rejection(400, request_id, jsonrpc.INVALID_PARAMS, "'params._meta' must be an object")
    if era is Era.LEGACY:
        return Request(request_id, method, params, meta, era, version or ASSUMED_LEGACY)
    return _modern(request_id, method, params, meta=meta, headers=headers)


def _modern(
    request_id: Id, method: str, params: Params, *, meta: Params, headers: Mapping[str, str]
) -> Request | Rejection:
    """The modern era's ladder: the envelope, the mirrored headers, the version."""
    seen: dict[str, Any] = {"_meta": _decode_object(params["_meta"])} if "_meta" in params else {}
    key = NAME_BEARING_METHODS.get(method)
    if key is not None and key in params:
        seen[key] = _scalar(params[key])
    verdict = classify_inbound_request({"method": method, "params": seen}, headers=headers)
    if isinstance(verdict, InboundLadderRejection):
        status = jsonrpc.http_status(Era.MODERN, verdict.code)
        return Rejection(status, request_id, verdict.code, verdict.message, verdict.data)
    info = seen["_meta"].get(CLIENT_INFO_META_KEY)
    name = info.get("name") if isinstance(info, dict) else None
    client_version = info.get("version") if isinstance(info, dict) else None
    return Request(
        request_id,
        method,
        params,
        meta,
        Era.MODERN,
        verdict.protocol_version,
        name if isinstance(name, str) else None,
        client_version if isinstance(client_version, str) else None,
    )


def _scalar(value: Raw) -> Any:
    decoded = msgspec.json.decode(value)
    return decoded if isinstance(decoded, str) else None


def _why_invalid(body: bytes, error: msgspec.ValidationError) -> str:
    if body.lstrip()[:1] == b"[":
        return "the body is a batch: send one message a request"
    return f"the body is no JSON-RPC 2.0 message: {error}"
