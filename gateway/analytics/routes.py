"""The read API's paths, to be mounted by the observer. Every answer is made in a thread, from one snapshot."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.analytics import call_pages, openapi, views
from gateway.analytics.accept import ApiEndpoint, at, negotiate, without_length
from gateway.analytics.authorization import Access, Authorizer
from gateway.analytics.export import MAX_ROWS, SECONDS, Download, Exports, file_name, parse_format
from gateway.analytics.export_formats import FORMATS
from gateway.analytics.http_errors import NO_STORE, ApiError
from gateway.analytics.ledger_outage import ledger_errors
from gateway.analytics.models import (
    CallDetail,
    CallGroups,
    CallPage,
    Everything,
    MemberStats,
    Overview,
    ServerStats,
    Timeline,
    ToolStats,
    WorkspaceUsage,
)
from gateway.analytics.openapi import ViewRoute
from gateway.analytics.parameters import COMMON, Fields, parse
from gateway.analytics.query import AnalyticsQuery, Catalog, UpstreamUp, check_names, empty_catalog, unknown_state
from gateway.analytics.timeline import MAX_SERIES, timeline
from gateway.analytics.usage import usage
from gateway.config import Config
from gateway.ledger import Ledger, Snapshot

PREFIX: Final = "/api/community/mcp/workspaces/{workspace_id}/analytics"
JSON: Final = "application/json"
AT_ONCE: Final = 4
"""Questions that are answered at the same time, each in a thread of its own; more wait."""
MAX_WAITING: Final = 64
RETRY_AFTER_S: Final = 2

T = TypeVar("T")


VIEWS: Final[Mapping[str, ViewRoute]] = {
    "": ViewRoute(views.everything, Everything),
    "/overview": ViewRoute(views.overview, Overview),
    "/tools": ViewRoute(views.tools, list[ToolStats], summary="Tools, the most called first, the unused ones with 0."),
    "/members": ViewRoute(
        views.members, list[MemberStats], summary="Members and bots, the most active first, the silent ones with 0."
    ),
    "/servers": ViewRoute(
        views.servers, list[ServerStats], summary="Servers, the most called first, the unused ones with 0."
    ),
    "/usage": ViewRoute(usage, WorkspaceUsage),
    "/groups": ViewRoute(views.groups, CallGroups, parameters=(*COMMON, "by")),
    "/timeline": ViewRoute(timeline, Timeline, parameters=(*COMMON, "step", "by"), max_limit=MAX_SERIES),
    "/calls": ViewRoute(call_pages.page, CallPage, parameters=(*COMMON, "cursor"), max_limit=call_pages.MAX_PAGE),
    "/calls/{call_id}": ViewRoute(
        call_pages.single,
        CallDetail,
        summary="One call with all that is known of it, if the filters let it through, whatever the range is.",
    ),
}


class AnalyticsApi:
    """What all paths share."""

    def __init__(
        self,
        ledger: Ledger,
        config: Callable[[], Config],
        *,
        catalog: Catalog,
        upstream_up: UpstreamUp,
        clock: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._catalog = catalog
        self._upstream_up = upstream_up
        self._clock = clock
        self._authorizer = Authorizer(config)
        self._threads = anyio.CapacityLimiter(AT_ONCE)
        self._asked = 0
        self._exports = Exports()

    async def respond(self, request: Request, *, view: ViewRoute) -> Response:
        """Answer a request for `view`.

        Raises:
            ApiError: anything but 200.
        """
        query = await self._question(request, JSON, view.parameters, view.max_limit)
        body = await self._run_in_turn(partial(self._ask, view.answer, query))
        return Response(body, headers=NO_STORE, media_type=JSON)

    async def export(self, request: Request) -> Response:
        """The range's calls as a file.

        Raises:
            ApiError: anything but 200.
        """
        wanted = FORMATS.get(request.query_params.get("format", ""))
        media_type = JSON if wanted is None else wanted.media_type
        query = await self._question(request, media_type, (*COMMON, "format"), MAX_ROWS)
        file_format = parse_format(query.fields)
        headers = {
            **NO_STORE,
            "Content-Disposition": f'attachment; filename="{file_name(query, file_format)}"',
            "Content-Type": file_format.media_type,
        }
        await self._run_in_turn(partial(self._check, query))
        if request.method == "HEAD":
            return without_length(Response(headers=headers))
        with ledger_errors():
            content = await self._exports.begin(self._ledger.snapshot(seconds=SECONDS), query, file_format)
        return Download(content, headers)

    async def nothing(self, request: Request) -> Response:
        """A path that there is not, for whoever may know it.

        Raises:
            ApiError: always.
        """
        await self._access(request, JSON)
        raise ApiError(404, f"there is no {request.url.path}: see docs/api.md for the paths")

    async def _access(self, request: Request, media_type: str) -> Access:
        negotiate(request, media_type)
        return await self._authorizer.authorize(
            request.headers.get("authorization"), request.path_params["workspace_id"]
        )

    async def _question(
        self, request: Request, media_type: str, parameters: tuple[str, ...], max_limit: int
    ) -> AnalyticsQuery:
        access = await self._access(request, media_type)
        now_ns = self._clock()
        fields = Fields(request.query_params.multi_items(), parameters)
        return AnalyticsQuery(
            access=access,
            fields=fields,
            parameters=parse(fields, now_ns=now_ns, max_limit=max_limit),
            now_ns=now_ns,
            fresh_as_of_ns=self._ledger.fresh_as_of_ns,
            catalog=self._catalog,
            upstream_up=self._upstream_up,
            call_id=request.path_params.get("call_id", ""),
        )

    async def _run_in_turn(self, ask: Callable[[], T]) -> T:
        """What `ask` returns, in a thread, when its turn has come."""
        if self._asked >= AT_ONCE + MAX_WAITING:
            raise ApiError(
                429,
                f"{AT_ONCE} questions are being answered, and {MAX_WAITING} wait: ask again later, or less at once",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self._asked += 1
        try:
            return await anyio.to_thread.run_sync(ask, limiter=self._threads)
        finally:
            self._asked -= 1

    def _check(self, query: AnalyticsQuery) -> None:
        with ledger_errors():
            check_names(self._ledger, query)

    def _ask(self, answer: Callable[[Snapshot, AnalyticsQuery], Any], query: AnalyticsQuery) -> bytes:
        with ledger_errors():
            check_names(self._ledger, query)
            with self._ledger.snapshot() as snapshot:
                return msgspec.json.encode(answer(snapshot, query))


class _Described:
    """Answers with the description of the API."""

    def __init__(self) -> None:
        self._body = msgspec.json.encode(openapi.document(VIEWS))

    async def respond(self, request: Request) -> Response:
        """OpenAPI 3.1, for whoever asks: it tells nothing of any workspace.

        Raises:
            ApiError: 405 or 406.
        """
        negotiate(request, JSON)
        return Response(self._body, media_type=JSON)


def routes(
    ledger: Ledger,
    config: Callable[[], Config],
    *,
    catalog: Catalog = empty_catalog,
    upstream_up: UpstreamUp = unknown_state,
    clock: Callable[[], int] = time.time_ns,
) -> list[BaseRoute]:
    """Every path below `/api/community/mcp/workspaces/{workspace_id}/analytics`; what is not there answers 404 as JSON.

    `config` and the two callables are asked for each request, so a reloaded configuration holds at once.
    """
    api = AnalyticsApi(ledger, config, catalog=catalog, upstream_up=upstream_up, clock=clock)
    return [
        *(route for path, view in VIEWS.items() for route in at(PREFIX + path, partial(api.respond, view=view))),
        *at(PREFIX + "/export", api.export),
        *at(openapi.PATH, _Described().respond),
        Route(PREFIX + "/{rest:path}", ApiEndpoint(api.nothing)),
    ]
