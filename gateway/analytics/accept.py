"""What is decided of a request before it is understood: its method, and whether its client takes the answer's type."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gateway.analytics.http_errors import ApiError

METHODS: Final = ("GET", "HEAD")


class ApiEndpoint:
    """One path as an ASGI application, for every method: what it refuses is refused as JSON."""

    def __init__(self, respond: Callable[[Request], Awaitable[Response]]) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or say why not."""
        try:
            response = await self._respond(Request(scope))
        except ApiError as refusal:
            response = refusal.response()
        await response(scope, receive, send)


def at(path: str, respond: Callable[[Request], Awaitable[Response]]) -> list[Route]:
    """The routes of a path: a slash at its end changes nothing."""
    return [Route(path + slash, ApiEndpoint(respond)) for slash in ("", "/")]


def without_length(response: Response) -> Response:
    """The answer to HEAD where only writing the body would tell how long it is (RFC 9110, section 8.6)."""
    del response.headers["Content-Length"]
    return response


def negotiate(request: Request, media_type: str) -> None:
    """Whether the request is one for reading `media_type`.

    Raises:
        ApiError: 405 or 406.
    """
    if request.method not in METHODS:
        allowed = ", ".join(METHODS)
        raise ApiError(405, f"{request.method} is not for reading: use {allowed}", headers={"Allow": allowed})
    if not accepts(request.headers.getlist("accept"), media_type):
        raise ApiError(406, f"the answer is {media_type}, which the Accept header excludes")


def accepts(accept: Sequence[str], media_type: str) -> bool:
    """Whether the values of `Accept` let a type through (RFC 9110, section 12.5.1); no header lets all through."""
    wanted = media_type.partition(";")[0]
    any_of_kind = f"{wanted.partition('/')[0]}/*"
    quality: dict[str, float] = {}
    for part in ",".join(accept).split(","):
        media, *settings = (piece.strip().lower() for piece in part.split(";"))
        weights = [setting.removeprefix("q=") for setting in settings if setting.startswith("q=")]
        if media:
            quality[media] = float(weights[0]) if weights and weights[0].replace(".", "", 1).isdecimal() else 1.0
    matching = (media for media in (wanted, any_of_kind, "*/*") if media in quality)
    return not quality or quality.get(next(matching, ""), 0.0) > 0
