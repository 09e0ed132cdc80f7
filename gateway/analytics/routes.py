"""The read API's paths, to be mounted by the observer. Every answer is made in a thread, from one snapshot."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from gateway.analytics import pages, parts
from gateway.analytics.auth import Authorizer
from gateway.analytics.parameters import COMMON, MAX_LIMIT, Fields, parse
from gateway.analytics.question import Catalogue, Question, UpstreamUp, check_names, no_catalogue, unknown_state
from gateway.analytics.refusals import NO_STORE, RefusedError, unavailable
from gateway.analytics.timeline import MAX_SERIES, timeline
from gateway.analytics.usage import usage
from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger, Snapshot

PREFIX: Final = "/api/community/mcp/workspaces/{workspace_id}/analytics"
JSON: Final = "application/json"
METHODS: Final = ("GET", "HEAD")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How one path answers, and the parameters that it takes."""

    answer: Callable[[Snapshot, Question], Any]
    parameters: tuple[str, ...] = COMMON
    max_limit: int = MAX_LIMIT


VIEWS: Final[Mapping[str, View]] = {
    "": View(answer=parts.everything),
    "/overview": View(answer=parts.overview),
    "/tools": View(answer=parts.tools),
    "/members": View(answer=parts.members),
    "/servers": View(answer=parts.servers),
    "/usage": View(answer=usage),
    "/groups": View(answer=parts.groups, parameters=(*COMMON, "by")),
    "/timeline": View(answer=timeline, parameters=(*COMMON, "step", "by"), max_limit=MAX_SERIES),
    "/calls": View(answer=pages.page, parameters=(*COMMON, "cursor"), max_limit=pages.MAX_PAGE),
    "/calls/{call_id}": View(answer=pages.single, parameters=()),
}


class Endpoint:
    """One path as an ASGI application: all that it may answer is JSON, the refusals too."""

    def __init__(self, api: "Api", view: View | None) -> None:
        self._api = api
        self._view = view

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or say why not."""
        try:
            response = await self._api.respond(Request(scope), self._view)
        except RefusedError as refusal:
            response = refusal.response()
        await response(scope, receive, send)


class Api:
    """What all paths share."""

    def __init__(
        self,
        ledger: Ledger,
        config: Callable[[], Config],
        *,
        catalogue: Catalogue,
        upstream_up: UpstreamUp,
        clock: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._catalogue = catalogue
        self._upstream_up = upstream_up
        self._clock = clock
        self._authorizer = Authorizer(config)

    async def respond(self, request: Request, view: View | None) -> Response:
        """Answer a request for `view`; None is a path that there is not, for whoever may know it.

        Raises:
            RefusedError: anything but 200.
        """
        if request.method not in METHODS:
            allowed = ", ".join(METHODS)
            raise RefusedError(405, f"{request.method} is not for reading: use {allowed}", headers={"Allow": allowed})
        if not accepts_json(request.headers.getlist("accept")):
            raise RefusedError(406, f"the answer is {JSON}, which the Accept header excludes")
        access = await self._authorizer.authorize(
            request.headers.get("authorization"), request.path_params["workspace_id"]
        )
        if view is None:
            raise RefusedError(404, f"there is no {request.url.path}: see docs/api.md for the paths")
        now_ns = self._clock()
        fields = Fields(request.query_params.multi_items(), view.parameters)
        question = Question(
            access=access,
            fields=fields,
            parameters=parse(fields, now_ns=now_ns, max_limit=view.max_limit),
            now_ns=now_ns,
            fresh_as_of_ns=self._ledger.fresh_as_of_ns,
            catalogue=self._catalogue,
            upstream_up=self._upstream_up,
            call_id=request.path_params.get("call_id", ""),
        )
        body = await anyio.to_thread.run_sync(self._ask, view.answer, question)
        return Response(body, headers=NO_STORE, media_type=JSON)

    def _ask(self, answer: Callable[[Snapshot, Question], Any], question: Question) -> bytes:
        try:
            with self._ledger.snapshot() as snapshot:
                check_names(snapshot, question)
                return msgspec.json.encode(answer(snapshot, question))
        except LedgerUnavailableError as error:
            raise unavailable(str(error)) from error


def accepts_json(accept: list[str]) -> bool:
    """Whether the values of `Accept` let JSON through (RFC 9110, section 12.5.1); no header lets all through."""
    quality: dict[str, float] = {}
    for part in ",".join(accept).split(","):
        media, *settings = (piece.strip().lower() for piece in part.split(";"))
        weights = [setting.removeprefix("q=") for setting in settings if setting.startswith("q=")]
        if media:
            quality[media] = float(weights[0]) if weights and weights[0].replace(".", "", 1).isdecimal() else 1.0
    matching = (media for media in (JSON, "application/*", "*/*") if media in quality)
    return not quality or quality.get(next(matching, ""), 0.0) > 0


def routes(
    ledger: Ledger,
    config: Callable[[], Config],
    *,
    catalogue: Catalogue = no_catalogue,
    upstream_up: UpstreamUp = unknown_state,
    clock: Callable[[], int] = time.time_ns,
) -> list[BaseRoute]:
    """Every path below `/api/community/mcp/workspaces/{workspace_id}/analytics`; what is not there answers 404 as JSON.

    `config` and the two callables are asked for each request, so a reloaded configuration holds at once.
    """
    api = Api(ledger, config, catalogue=catalogue, upstream_up=upstream_up, clock=clock)
    return [
        *(Route(PREFIX + path + slash, Endpoint(api, view)) for path, view in VIEWS.items() for slash in ("", "/")),
        Route(PREFIX + "/{rest:path}", Endpoint(api, None)),
    ]
