"""What an HTTP answer of an upstream means: the response to a request, or why it is none."""

import re
from typing import Final

from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.http1.client import HttpResponse
from gateway.mcp import jsonrpc
from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamError, UpstreamResponse

OK: Final = 200
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
METHOD_NOT_ALLOWED: Final = 405
HTTP_ERROR: Final = ErrorType.UPSTREAM_HTTP_ERROR
_REDIRECT: Final = range(300, 400)
_SAME_METHOD: Final = frozenset({307, 308})
"""Redirects that keep the method and the body (RFC 9110, section 15.4)."""
_SHOWN_BYTES: Final = 65536
_SHOWN_TARGET: Final = 256
_SECRET_PART: Final = re.compile("[?#]")
"""Where the part of a URL begins that may hold a key."""


class RedirectError(UpstreamError):
    """The upstream says that the request belongs elsewhere, as it is."""

    def __init__(self, message: str, *, http_status: int, location: bytes) -> None:
        super().__init__(HTTP_ERROR, message, http_status=http_status)
        self.location = location


def decode(data: bytes) -> jsonrpc.Message:
    """Any JSON-RPC message.

    Raises:
        UpstreamError: it is none.
    """
    try:
        if not data.isascii():
            data.decode()  # what stays undecoded here is sent on
        return jsonrpc.decode_message(data)
    except jsonrpc.NO_JSON as error:
        raise _garbage(data, error) from error


def _decode_response(data: bytes) -> jsonrpc.Response:
    try:
        if not data.isascii():
            data.decode()
        return jsonrpc.decode_response(data)
    except jsonrpc.NO_JSON as error:
        raise _garbage(data, error) from error


def code_of(error: Raw) -> int | None:
    """The code of a JSON-RPC error; None if it has none."""
    try:
        return jsonrpc.decode_error(error).code
    except jsonrpc.NO_JSON:
        return None


def _garbage(data: bytes, error: Exception) -> UpstreamError:
    message = f"answered what is no JSON-RPC: {error}"
    return UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, message, response=data[:_SHOWN_BYTES])


def reply_in(message: jsonrpc.Message | jsonrpc.Response, size: int, request_id: int, era: Era) -> UpstreamResponse:
    """The response in a message, if it is the one to our request; an error may have come before the id was read.

    Raises:
        UpstreamError: it is another's, or none.
    """
    if message.id == request_id and message.error is UNSET and message.result is not UNSET:
        return UpstreamResponse(message.result, UNSET, size, era)
    if message.error is not UNSET and message.id in (request_id, None):
        return UpstreamResponse(UNSET, message.error, size, era)
    raise UpstreamError(
        ErrorType.UPSTREAM_PROTOCOL_ERROR, "answered with a JSON-RPC message that is no response to the request"
    )


def read(response: HttpResponse, request_id: int, era: Era) -> UpstreamResponse:
    """What an answer that came whole means. A JSON-RPC error counts whatever the HTTP status is.

    Raises:
        RedirectError, UpstreamError: it is no response to the request.
    """
    status = response.status
    try:
        reply = reply_in(_decode_response(response.body), len(response.body), request_id, era)
    except UpstreamError as error:
        if status in _REDIRECT:
            location = response.headers.get(b"location", b"")
            target = _SECRET_PART.split(location.decode("latin-1"))[0][:_SHOWN_TARGET]
            message, kind = f"redirects (HTTP {status}) to {target!r}: name that URL instead", HTTP_ERROR
            if status in _SAME_METHOD and location:
                raise RedirectError(message, http_status=status, location=location) from error
        elif status >= BAD_REQUEST:
            message, kind = f"answered HTTP {status}", HTTP_ERROR
        elif not response.body:
            message, kind = f"answered HTTP {status} without a JSON-RPC response", error.error_type
        else:
            message, kind = str(error), error.error_type
        raise UpstreamError(kind, message, http_status=status, response=response.body[:_SHOWN_BYTES]) from error
    if status >= BAD_REQUEST and reply.error is UNSET:
        raise UpstreamError(
            HTTP_ERROR, f"answered HTTP {status}", http_status=status, response=response.body[:_SHOWN_BYTES]
        )
    return reply
