"""Why the API does not answer a request: the status, the sentence for a person and the headers."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from gateway.analytics.models import ErrorBody
from gateway.errors import CallscopeError

NO_STORE = {"Cache-Control": "no-store"}


class ApiError(CallscopeError):
    """A request that gets an error status. The body is an `ErrorBody`."""

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
        """What the client gets."""
        body = ErrorBody(
            error=_encodable(str(self)),
            parameter=self.parameter,
            allowed=UNSET if self.allowed is UNSET else list(self.allowed),
        )
        return Response(msgspec.json.encode(body), self.status, {**NO_STORE, **self.headers}, "application/json")


class ParameterError(ApiError):
    """A parameter that is none, or whose value is none of `allowed`."""

    def __init__(self, parameter: str, problem: str, allowed: Sequence[str] = ()) -> None:
        super().__init__(400, f"{parameter}: {problem}", parameter=parameter, allowed=allowed)


def _encodable(message: str) -> str:
    """Without halves of surrogate pairs, which a JSON Web Token may have brought into it."""
    return message.encode(errors="replace").decode()


def unauthorized(message: str) -> ApiError:
    """No credentials, or bad ones (RFC 6750, section 3)."""
    return ApiError(401, message, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def unavailable(message: str, *, retry_after_s: int = 2) -> ApiError:
    """The same request may succeed later."""
    return ApiError(503, message, headers={"Retry-After": str(retry_after_s)})
