"""What a whole HTTP response of an upstream means: the JSON-RPC response to a request, or why it is none."""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import UNSET

from gateway.calls import ErrorType
from gateway.http1.client import HttpResponse
from gateway.mcp import jsonrpc
from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamError, UpstreamResponse

OK: Final = 200
BAD_REQUEST: Final = 400
NOT_FOUND: Final = 404
METHOD_NOT_ALLOWED: Final = 405
_REDIRECTS: Final = range(300, 400)
_SAME_METHOD_REDIRECTS: Final = frozenset({307, 308})
"""Redirects that keep the method and the body (RFC 9110, section 15.4)."""
_SHOWN_BYTES: Final = 65536
_SHOWN_TARGET: Final = 256
_QUERY_OR_FRAGMENT: Final = re.compile("[?#]")
"""Where the part of a URL begins that may hold a secret."""

M = TypeVar("M", jsonrpc.Message, jsonrpc.Response)


class RedirectError(UpstreamError):
    """The upstream says that the same request belongs at another URL."""

    def __init__(self, message: str, *, http_status: int, location: bytes) -> None:
        super().__init__(ErrorType.UPSTREAM_HTTP_ERROR, message, http_status=http_status)
        self.location = location


def decode(data: bytes, decoder: Callable[[bytes], M]) -> M:
    """A JSON-RPC message, by one of the decoders of `jsonrpc`.

    Raises:
        UpstreamError: it is not JSON-RPC.
    """
    try:
        if not data.isascii():
            data.decode()  # `Raw` members are sent on without a look into them
        return decoder(data)
    except jsonrpc.DECODE_ERRORS as error:
        message = f"sent something that is not JSON-RPC: {error}"
        raise UpstreamError(ErrorType.UPSTREAM_PROTOCOL_ERROR, message, response=data[:_SHOWN_BYTES]) from error


def response_in(message: jsonrpc.Message | jsonrpc.Response, size: int, request_id: int, era: Era) -> UpstreamResponse:
    """The response to our request in a message of `size` bytes.

    An error without an id counts: the server may have failed before it had read the id.

    Raises:
        UpstreamError: it is the response to another request, or none.
    """
    if message.id == request_id and message.error is UNSET and message.result is not UNSET:
        return UpstreamResponse(message.result, UNSET, size, era)
    if message.error is not UNSET and message.id in (request_id, None):
        return UpstreamResponse(UNSET, message.error, size, era)
    raise UpstreamError(
        ErrorType.UPSTREAM_PROTOCOL_ERROR, "sent a JSON-RPC message that is not the response to the request"
    )


def read(response: HttpResponse, request_id: int, era: Era) -> UpstreamResponse:
    """The meaning of a response that came whole. A JSON-RPC error counts whatever the HTTP status is.

    Raises:
        RedirectError, UpstreamError: it is not the response to the request.
    """
    status, body = response.status, response.body
    try:
        reply = response_in(decode(body, jsonrpc.decode_response), len(body), request_id, era)
    except UpstreamError as error:
        raise _failure(response, error) from error
    if status >= BAD_REQUEST and reply.error is UNSET:
        raise _http_error(response, f"answered HTTP {status}")
    return reply


def _failure(response: HttpResponse, error: UpstreamError) -> UpstreamError:
    status = response.status
    if status in _REDIRECTS:
        location = response.headers.get(b"location", b"")
        target = _QUERY_OR_FRAGMENT.split(location.decode("latin-1"))[0][:_SHOWN_TARGET]
        message = f"redirects (HTTP {status}) to {target!r}: configure that URL instead"
        if status in _SAME_METHOD_REDIRECTS and location:
            return RedirectError(message, http_status=status, location=location)
        return _http_error(response, message)
    if status >= BAD_REQUEST:
        return _http_error(response, f"answered HTTP {status}")
    message = str(error) if response.body else f"answered HTTP {status} without a JSON-RPC response"
    return UpstreamError(error.error_type, message, http_status=status, response=response.body[:_SHOWN_BYTES])


def _http_error(response: HttpResponse, message: str) -> UpstreamError:
    return UpstreamError(
        ErrorType.UPSTREAM_HTTP_ERROR, message, http_status=response.status, response=response.body[:_SHOWN_BYTES]
    )
