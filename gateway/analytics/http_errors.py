"""Error answers of the API, and the checks and wrappers that every endpoint shares."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.analytics.models import ErrorBody
from gateway.errors import CallscopeError, LedgerUnavailableError
from gateway.ledger import QueryTimeoutError
from gateway.media_types import accepts

METHODS: Final = ("GET", "HEAD")
NO_STORE: Final = {"Cache-Control": "no-store"}

logger = logging.getLogger(__name__)


class ApiError(CallscopeError):
    """A request that gets an error status and an `ErrorBody`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        parameter: str | UnsetType = UNSET,
        allowed: Sequence[str] | UnsetType = UNSET,
    ) -> None:
        self.status = status
        self.headers = headers or {}
        self.parameter = parameter
        self.allowed = allowed
        super().__init__(message)

    def response(self) -> Response:
        message = str(self).encode(errors="replace").decode()  # a JWT may bring halves of surrogate pairs into it
        allowed = UNSET if self.allowed is UNSET else list(self.allowed)
        body = msgspec.json.encode(ErrorBody(error=message, parameter=self.parameter, allowed=allowed))
        return Response(body, self.status, {**NO_STORE, **self.headers}, "application/json")


class ParameterError(ApiError):
    """A parameter that is unknown or has a wrong value; `allowed` has right ones, or examples of them."""

    def __init__(self, parameter: str, problem: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(400, f"{parameter}: {problem}", parameter=parameter, allowed=allowed)


def unauthorized(message: str) -> ApiError:
    """No credentials, or bad ones (RFC 6750, section 3)."""
    return ApiError(401, message, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def unavailable(message: str, *, retry_after_s: int = 2) -> ApiError:
    """The same request may succeed later."""
    return ApiError(503, message, headers={"Retry-After": str(retry_after_s)})


def too_many(message: str, *, retry_after_s: int) -> ApiError:
    return ApiError(429, message, headers={"Retry-After": str(retry_after_s)})


@contextlib.contextmanager
def ledger_errors() -> Iterator[None]:
    """Turn an outage of the ledger into a 503; its cause may name addresses, so only the log has it."""
    try:
        yield
    except QueryTimeoutError as error:
        raise unavailable(str(error)) from error
    except LedgerUnavailableError as error:
        logger.warning("the ledger is away, a request is answered with 503: %s", error)
        raise unavailable("the ledger is away: try again later; the observer's log says why") from error


class ApiEndpoint:
    """One path as an ASGI application, for every method: an `ApiError` becomes its response."""

    def __init__(self, respond: Callable[[Request], Awaitable[Response]]) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._respond(Request(scope))
        except ApiError as error:
            response = error.response()
        await response(scope, receive, send)


def routes_at(path: str, respond: Callable[[Request], Awaitable[Response]]) -> list[Route]:
    """The routes of a path: a slash at its end changes nothing."""
    return [Route(path + slash, ApiEndpoint(respond)) for slash in ("", "/")]


def without_length(response: Response) -> Response:
    """The answer to HEAD if the length is known only after the body is written (RFC 9110, section 8.6)."""
    del response.headers["Content-Length"]
    return response


def negotiate(request: Request, media_type: str) -> None:
    """Raise `ApiError` 405 or 406 if the request does not read, or does not accept `media_type`."""
    if request.method not in METHODS:
        allowed = ", ".join(METHODS)
        raise ApiError(405, f"{request.method} is not allowed: use {allowed}", headers={"Allow": allowed})
    if not accepts(",".join(request.headers.getlist("accept")), media_type):
        raise ApiError(406, f"the answer is {media_type}, which the Accept header excludes")
