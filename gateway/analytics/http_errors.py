"""Why the API does not answer a request: the status, the sentence for a person and the headers."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.responses import Response

from gateway.errors import CallscopeError

NO_STORE = {"Cache-Control": "no-store"}


class RefusedError(CallscopeError):
    """A request that gets an error status. The body is `{"error": message}` and what `details` adds."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.headers = headers or {}
        self.details = details or {}
        super().__init__(message)

    def response(self) -> Response:
        """What the client gets."""
        return Response(
            msgspec.json.encode({"error": _encodable(str(self)), **self.details}),
            self.status,
            {**NO_STORE, **self.headers},
            "application/json",
        )


class ParameterError(RefusedError):
    """A parameter that is none, or whose value is none of `allowed`."""

    def __init__(self, parameter: str, problem: str, allowed: Sequence[str] = ()) -> None:
        self.parameter = parameter
        super().__init__(400, f"{parameter}: {problem}", details={"parameter": parameter, "allowed": list(allowed)})


def _encodable(message: str) -> str:
    """Without halves of surrogate pairs, which a JSON Web Token may have brought into it."""
    return message.encode(errors="replace").decode()


def unauthorized(message: str) -> RefusedError:
    """No credentials, or bad ones (RFC 6750, section 3)."""
    return RefusedError(401, message, headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})


def unavailable(message: str, *, retry_after_s: int = 2) -> RefusedError:
    """The same request may succeed later."""
    return RefusedError(503, message, headers={"Retry-After": str(retry_after_s)})
