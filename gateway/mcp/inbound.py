"""One POST of a client: bytes and headers in, a request, a notification or a rejection out.

Source: specification 2026-07-28, basic/index, streamable-http "Sending Messages", "Standard headers"; JSON-RPC 2.0.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from mcp.shared.inbound import (
    NAME_BEARING_METHODS,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
)
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.jsonrpc import HEADER_MISMATCH
from msgspec import UNSET, Meta, Raw, Struct

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import Id, Params, Response
from gateway.mcp.revisions import ASSUMED_LEGACY, LATEST_MODERN_VERSION, Era, era_of

Headers = Mapping[bytes, bytes]
"""HTTP fields, names in lower case; of a repeated one the last."""
Lines = Sequence[tuple[bytes, bytes]]
"""HTTP fields as they came."""

_NO_PARAMS: Final[Params] = {}
_MODERN: Final = LATEST_MODERN_VERSION.encode()
_MODERN_JSON: Final = Raw(b'"%b"' % _MODERN)
Shown = Annotated[str, Meta(max_length=256)]
"""A text that goes into every record of a call; a longer one is dropped."""


class ClientInfo(Struct, frozen=True):
    """`io.modelcontextprotocol/clientInfo`, as the client declares it."""

    name: Shown | None = None
    version: Shown | None = None


_NOBODY: Final = ClientInfo()
_decode_client: Final = msgspec.json.Decoder(ClientInfo).decode


class Request:
    """A request that may be served; `meta` is its `params._meta`, undecoded."""

    __slots__ = ("client", "era", "id", "meta", "method", "params", "version")

    def __init__(self, id: Id, method: str, params: Params, meta: Params, era: Era, version: str) -> None:  # noqa: A002 - JSON-RPC's name; on the hot path
        self.id = id
        self.method = method
        self.params = params
        self.meta = meta
        self.era = era
        self.version = version
        self.client = _NOBODY


class Notification(NamedTuple):
    """A message without a response."""

    method: str
    params: Params
    era: Era


class ClientResponse(NamedTuple):
    """A legacy client's response to a request from a server."""

    id: Id
    response: Response


class Rejection(NamedTuple):
    """Why a message is not served: an HTTP status and the members of a JSON-RPC error."""

    status: int
    id: Id | None
    code: int
    message: str
    data: Any = None


def read(body: bytes, headers: Headers, lines: Lines) -> Request | Notification | ClientResponse | Rejection:
    """Validate a POST's body against its headers; `lines` are the headers as they came, repeated ones included."""
    version = headers.get(b"mcp-protocol-version")
    era = Era.MODERN if version == _MODERN else era_of(version.decode("latin-1") if version is not None else None)
    try:
        if not body.isascii():
            body.decode()  # what is not decoded here is decoded later, or passed on
        message = jsonrpc.decode_message(body)
    except msgspec.ValidationError as error:
        return Rejection(400, None, jsonrpc.INVALID_REQUEST, _why_invalid(body, error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Rejection(400, None, jsonrpc.PARSE_ERROR, f"the body is no JSON: {error}")
    request_id, method = message.id, message.method
    if message.jsonrpc != "2.0" or request_id is None:
        known = request_id if request_id is not UNSET else None
        wrong = "'jsonrpc' must be \"2.0\"" if message.jsonrpc != "2.0" else "'id' must not be null"
        return Rejection(400, known, jsonrpc.INVALID_REQUEST, f"the body is no JSON-RPC 2.0 message: {wrong}")
    if method is UNSET:
        if era is Era.LEGACY and request_id is not UNSET and (message.result, message.error) != (UNSET, UNSET):
            return ClientResponse(request_id, Response(request_id, message.result, message.error))
        return Rejection(400, None, jsonrpc.INVALID_REQUEST, "the body is neither a request nor a notification")
    params = message.params if message.params is not UNSET else _NO_PARAMS
    if request_id is UNSET:
        return Notification(method, params, era)
    raw_meta = params.get("_meta")
    try:
        meta = jsonrpc.decode_params(raw_meta) if raw_meta is not None else _NO_PARAMS
    except msgspec.MsgspecError:
        return Rejection(400, request_id, jsonrpc.INVALID_PARAMS, "'params._meta' must be an object")
    if era is Era.LEGACY:
        spoken = version.decode("latin-1") if version is not None else ASSUMED_LEGACY
        return Request(request_id, method, params, meta, era, spoken)
    request = Request(request_id, method, params, meta, era, LATEST_MODERN_VERSION)
    return _is_plain(request, headers, lines) or _check(request, headers, lines)


def _is_plain(request: Request, headers: Headers, lines: Lines) -> Request | None:
    """The request, if every header mirrors the body to the letter: what nearly every client sends."""
    meta = request.meta
    if (
        meta.get(PROTOCOL_VERSION_META_KEY) != _MODERN_JSON
        or CLIENT_CAPABILITIES_META_KEY not in meta
        or headers.get(b"mcp-protocol-version") != _MODERN
        or headers.get(b"mcp-method") != request.method.encode()
        or len(headers) != len(lines)
    ):
        return None
    key = NAME_BEARING_METHODS.get(request.method)
    if key is not None:
        name, mirrored = request.params.get(key), headers.get(b"mcp-name")
        if name is None or mirrored is None or bytes(name) != b'"%b"' % mirrored or b"\\" in mirrored:
            return None  # an escape means one thing in the body and another in the header
    client = meta.get(CLIENT_INFO_META_KEY)
    if client is not None:
        request.client = client_of(client)
    return request


def _check(request: Request, headers: Headers, lines: Lines) -> Request | Rejection:
    """Every check of the modern era: the envelope, the mirrored headers, the version."""
    texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    repeated = find_duplicated_routing_header((n.decode("latin-1"), v.decode("latin-1")) for n, v in lines)
    if repeated is None and len(headers) != len(lines):
        names = [name.decode("latin-1") for name, _ in lines if name.startswith(b"mcp-param-")]
        repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        return Rejection(400, request.id, HEADER_MISMATCH, f"the header {repeated} is sent more than once")
    seen: dict[str, Any] = {}
    if "_meta" in request.params:
        seen["_meta"] = dict(request.meta)
        if PROTOCOL_VERSION_META_KEY in request.meta:
            seen["_meta"][PROTOCOL_VERSION_META_KEY] = _text(request.meta[PROTOCOL_VERSION_META_KEY])
    key = NAME_BEARING_METHODS.get(request.method)
    if key is not None and key in request.params:
        seen[key] = _text(request.params[key])
    verdict = classify_inbound_request({"method": request.method, "params": seen}, headers=texts)
    if isinstance(verdict, InboundLadderRejection):
        status = jsonrpc.http_status(Era.MODERN, verdict.code)
        return Rejection(status, request.id, verdict.code, verdict.message, verdict.data)
    request.version = verdict.protocol_version
    if CLIENT_INFO_META_KEY in request.meta:
        request.client = client_of(request.meta[CLIENT_INFO_META_KEY])
    return request


def _text(value: Raw) -> str | None:
    return jsonrpc.decode_or(jsonrpc.decode_string, value, None)


def client_of(value: Raw) -> ClientInfo:
    """The decoded `clientInfo`; empty if it is invalid."""
    return _client_of(bytes(value))


@lru_cache(maxsize=1024)
def _client_of(value: bytes) -> ClientInfo:
    try:
        return _decode_client(value)
    except msgspec.MsgspecError:
        return _NOBODY


def _why_invalid(body: bytes, error: msgspec.ValidationError) -> str:
    if body.lstrip()[:1] == b"[":
        return "the body is a batch: send one message a request"
    return f"the body is no JSON-RPC 2.0 message: {error}"
