"""The paths of the read API, for the observer to mount. Every answer is made in a thread, from one snapshot."""

import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import chain
from typing import Final, TypeVar

import anyio.to_thread
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gateway.analytics import openapi, views
from gateway.analytics.authorization import Access, Authorizer
from gateway.analytics.export import BATCH_ROWS, FORMATS, MAX_ROWS, SECONDS, Exports, file_name, parse_format
from gateway.analytics.http_errors import (
    NO_STORE,
    ApiEndpoint,
    ApiError,
    ledger_errors,
    negotiate,
    routes_at,
    too_many,
    without_length,
)
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
from gateway.ledger import Ledger

PREFIX: Final = openapi.WORKSPACE + "/analytics"
JSON: Final = "application/json"
CONCURRENT: Final = 4
"""Requests that are answered at the same time, each in a thread of its own; more wait."""
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
    "/calls": ViewRoute(views.calls, CallPage, parameters=(*COMMON, "cursor"), max_limit=views.MAX_PAGE),
    "/calls/{call_id}": ViewRoute(
        views.single_call,
        CallDetail,
        summary="One call with all that is known of it, if the filters let it through, whatever the range is.",
    ),
}


class AnalyticsRoutes:
    """The endpoints of a workspace, and what they share.

    The callables are called for each request. `max_waiting` requests wait for a thread, and an export reads about
    `batch_rows` rows at once.
    """

    def __init__(
        self,
        ledger: Ledger,
        authorizer: Authorizer,
        *,
        catalog: Catalog = empty_catalog,
        upstream_up: UpstreamUp = unknown_state,
        clock: Callable[[], int] = time.time_ns,
        max_waiting: int = MAX_WAITING,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self._ledger = ledger
        self._authorizer = authorizer
        self._catalog = catalog
        self._upstream_up = upstream_up
        self._clock = clock
        self._threads = anyio.CapacityLimiter(CONCURRENT)
        self._max_waiting = max_waiting
        self._pending = 0
        self._exports = Exports(batch_rows=batch_rows)

    def routes(self) -> list[BaseRoute]:
        """Every path below `/api/community/mcp/workspaces/{workspace_id}/analytics`, and the OpenAPI description."""
        views = (routes_at(PREFIX + path, partial(self.view, view=view)) for path, view in VIEWS.items())
        return [
            *chain.from_iterable(views),
            *routes_at(PREFIX + "/export", self.export),
            *routes_at(openapi.PATH, _describe),
            Route(PREFIX + "/{rest:path}", ApiEndpoint(self.not_found)),
        ]

    async def view(self, request: Request, *, view: ViewRoute) -> Response:
        query = await self._query(request, JSON, view.parameters, view.max_limit)
        body = await self._in_thread(partial(self._answer, view, query))
        return Response(body, headers=NO_STORE, media_type=JSON)

    async def export(self, request: Request) -> Response:
        wanted = FORMATS.get(request.query_params.get("format", ""))
        media_type = JSON if wanted is None else wanted.media_type
        query = await self._query(request, media_type, (*COMMON, "format"), MAX_ROWS)
        file_format = parse_format(query.fields)
        headers = {
            **NO_STORE,
            "Content-Disposition": f'attachment; filename="{file_name(query, file_format)}"',
            "Content-Type": file_format.media_type,
        }
        await self._in_thread(partial(self._check, query))
        if request.method == "HEAD":
            return without_length(Response(headers=headers))
        with ledger_errors():
            return await self._exports.start(self._ledger.snapshot(seconds=SECONDS), query, file_format, headers)

    async def not_found(self, request: Request) -> Response:
        """A path that does not exist: 404 for those who may know it, 401 or 403 for others."""
        await self._access(request, JSON)
        raise ApiError(404, f"there is no {request.url.path}: see docs/api.md for the paths")

    async def _access(self, request: Request, media_type: str) -> Access:
        negotiate(request, media_type)
        authorization = request.headers.get("authorization")
        return await self._authorizer.authorize(authorization, request.path_params["workspace_id"])

    async def _query(
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

    async def _in_thread(self, read: Callable[[], T]) -> T:
        """The result of `read`, once one of the threads is free."""
        if self._pending >= CONCURRENT + self._max_waiting:
            raise too_many(
                f"{CONCURRENT} requests are being answered, and {self._max_waiting} wait: try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        self._pending += 1
        try:
            return await anyio.to_thread.run_sync(read, limiter=self._threads)
        finally:
            self._pending -= 1

    def _check(self, query: AnalyticsQuery) -> None:
        with ledger_errors():
            check_names(self._ledger, query)

    def _answer(self, view: ViewRoute, query: AnalyticsQuery) -> bytes:
        self._check(query)
        with ledger_errors(), self._ledger.snapshot() as snapshot:
            return msgspec.json.encode(view.answer(snapshot, query))


async def _describe(request: Request) -> Response:
    """It names no workspace, so it needs no token."""
    negotiate(request, JSON)
    return Response(_description(), media_type=JSON)


@cache
def _description() -> bytes:
    return msgspec.json.encode(openapi.document(VIEWS))
