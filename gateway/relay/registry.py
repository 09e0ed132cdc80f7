"""Where a request is looked up: tokens by digest, workspaces by path, servers by slug, tools by name.

A `WorkspaceRegistry` never changes. A reload makes a new one, which keeps the servers whose settings are the same,
with their connections, sessions and processes.
"""

import asyncio
import hashlib
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import limits
from msgspec import Raw

from gateway.calls import UNKNOWN, ErrorType, Operation
from gateway.config import Config, HttpServer, StdioServer, Workspace
from gateway.http1.pool import Pool
from gateway.journal import lines
from gateway.mcp import capabilities, jsonrpc, tool_names
from gateway.mcp.param_headers import ParamHeaders
from gateway.mcp.resource_uris import ResourceRoutes
from gateway.relay.catalog import Catalog, ListedTool
from gateway.upstream.base import OnChange, Upstream, UpstreamError, UpstreamRequest, UpstreamResponse, UpstreamTimings
from gateway.upstream.http import HttpUpstream, PoolFactory
from gateway.upstream.stdio import StdioUpstream

logger = logging.getLogger(__name__)

PATHS: Final = ("/ws/", "/api/gateway/ws/")
"""A workspace's slug follows."""

TOOLS_CHANGED: Final = "notifications/tools/list_changed"
_MAX_ROUTES: Final = 10_000

Observe = Callable[[Operation], None]
"""Records a request that is not a tool call."""

_DOWN: Final = frozenset(
    {ErrorType.UPSTREAM_UNREACHABLE, ErrorType.UPSTREAM_HTTP_ERROR, ErrorType.UPSTREAM_PROTOCOL_ERROR}
)
"""The errors that mean that a server is down. A timeout of a call does not."""


class Principal(NamedTuple):
    """Who calls: a token of one workspace."""

    workspace_id: str
    token_id: str
    expires_at: float | None
    """Seconds since the Unix epoch."""
    rate: limits.RateLimitItem | None
    members: str
    """For a call's lines in the journal."""


class Server:
    """One server of one workspace: its upstream, its catalog and its health."""

    def __init__(
        self,
        workspace_id: str,
        slug: str,
        settings: HttpServer | StdioServer,
        *,
        pool_for: PoolFactory,
        timings: UpstreamTimings,
        observe: Observe,
    ) -> None:
        self.workspace_id = workspace_id
        self.slug = slug
        self.settings = settings
        self.timeout = settings.timeout
        self.transport: Literal["http", "stdio"] = "stdio"
        self.upstream: Upstream
        if isinstance(settings, HttpServer):
            self.transport = "http"
            self.upstream = HttpUpstream(slug, settings, pool_for, timings)
        else:
            self.upstream = StdioUpstream(slug, settings, timings)
        self._observe = observe
        self.catalog = Catalog(slug, self.request)
        self.up: bool | None = None
        self.last_success_ns = 0
        self.in_flight = 0
        """Tool calls."""
        self.on_notification: OnChange | None = None
        """Gets the server's notifications that belong to no request, after the catalog is up to date."""
        self._is_listening = False
        self._relisting: asyncio.Task[None] | None = None

    @property
    def notifies(self) -> bool:
        """Whether it declares any notification of changes."""
        declared = capabilities.read_server(self.upstream.declared)
        lists = (declared.tools, declared.prompts, declared.resources)
        subscribable = declared.resources is not None and declared.resources.subscribe
        return bool(subscribable) or any(one is not None and one.list_changed for one in lists)

    def open_stream(self) -> None:
        """Receive its notifications from now on, if it declares any. The catalog needs them without a subscriber."""
        if self.notifies and not self._is_listening:
            self._is_listening = True
            self.upstream.listen(self._notified)

    def _notified(self, method: str, params: Raw) -> None:
        if method == TOOLS_CHANGED:
            self.catalog.invalidate()
            if self._relisting is None:
                self._relisting = asyncio.get_running_loop().create_task(self._relist(params))
        elif self.on_notification is not None:
            self.on_notification(method, params)

    async def _relist(self, params: Raw) -> None:
        try:
            await self.catalog.list()
        except UpstreamError as error:
            logger.warning("server %s of %s has changed its tools: %s", self.slug, self.workspace_id, error)
        finally:
            self._relisting = None
            if self.on_notification is not None:
                self.on_notification(TOOLS_CHANGED, params)

    async def close(self) -> None:
        if self._relisting is not None:
            self._relisting.cancel()
        await self.upstream.close()

    def succeeded(self) -> None:
        if self.up is False:
            logger.info("server %s of %s answers again", self.slug, self.workspace_id)
        self.up = True
        self.last_success_ns = time.time_ns()

    def failed(self, error: UpstreamError) -> None:
        """A tool call failed."""
        if error.error_type in _DOWN:
            self._went_down(error)

    def _went_down(self, reason: object) -> None:
        if self.up is not False:
            logger.warning("server %s of %s is down: %s", self.slug, self.workspace_id, reason)
        self.up = False

    async def request(self, request: UpstreamRequest, limit: asyncio.Timeout | None = None) -> UpstreamResponse:
        """Send a request that is not a tool call, recorded as an operation of the gateway as client.

        `limit` is the caller's: it tells a slow server from a client that stopped waiting.
        """
        began, began_ns = time.perf_counter_ns(), time.time_ns()
        error_type: str | None = None
        try:
            response = await self.upstream.request(request)
            self.succeeded()
            self.open_stream()
            error_type = None if response.is_result else ErrorType.JSONRPC_ERROR
        except UpstreamError as error:
            self._went_down(error)
            error_type = error.error_type
            raise
        except BaseException:
            late = limit is not None and limit.expired()
            if late and request.method == "tools/list":  # the relay's own probe
                self._went_down(f"it did not answer {request.method} in time")
            error_type = ErrorType.UPSTREAM_TIMEOUT if late else ErrorType.CANCELLED
            raise
        finally:
            self._observe(
                Operation(
                    side="client",
                    method=request.method,
                    timestamp_ns=began_ns,
                    duration_ms=(time.perf_counter_ns() - began) / 1e6,
                    workspace_id=self.workspace_id,
                    server_slug=self.slug,
                    error_type=error_type,
                    transport=self.transport,
                )
            )
        return response


class Route(NamedTuple):
    """Where a tool's public name leads. It is valid while its server's catalog is the one it was found in."""

    server: Server
    tool: str
    """The server's own name."""
    name: Raw
    """The same as JSON."""
    repeatable: bool
    catalog: Mapping[str, ListedTool]
    param_headers: ParamHeaders | None
    members: str
    """For a call's lines in the journal."""


class WorkspaceView:
    """One workspace and its enabled servers, in the order of the configuration file."""

    def __init__(self, slug: str, settings: Workspace, servers: Mapping[str, Server]) -> None:
        self.slug = slug
        self.settings = settings
        self.servers = servers
        self.uris: dict[str, list[str]] = {}
        """What each server listed last, by its slug."""
        self.templates: dict[str, list[str]] = {}
        self.resources = ResourceRoutes(())
        self.resources_listed_at = float("-inf")
        self.resources_listing: asyncio.Task[None] | None = None
        """The listing of all servers that is running."""
        self._routes: dict[bytes, Route] = {}

    def route(self, name: Raw) -> Route | None:
        """Where a call's `params.name` leads, if that server's catalog has the tool. Cached by the name's bytes."""
        key = bytes(name)
        route = self._routes.get(key)
        if route is not None and route.catalog is route.server.catalog.tools:
            return route
        server, tool = self.resolve(name)
        listed = server.catalog.tools.get(tool) if server is not None else None
        if server is None or listed is None:
            return None
        if len(self._routes) >= _MAX_ROUTES:
            self._routes.clear()
        members = route_members(self.slug, server, tool)
        route = self._routes[key] = Route(
            server, tool, jsonrpc.raw(tool), listed.repeatable, server.catalog.tools, listed.param_headers, members
        )
        return route

    def resolve(self, name: Raw) -> tuple[Server | None, str]:
        """The server in a public name, and the server's own name of the tool, whether it has that tool or not."""
        try:
            parts = tool_names.split(jsonrpc.decode_string(name))
        except jsonrpc.DECODE_ERRORS:
            parts = None
        return (self.servers.get(parts[0]), parts[1]) if parts is not None else (None, "")


def route_members(workspace_id: str, server: Server | None, tool: str) -> str:
    """The members of a call's lines that say where it goes."""
    return lines.members(
        workspace_id=workspace_id,
        server_slug=server.slug if server is not None else UNKNOWN,
        tool_name=tool,
        transport=server.transport if server is not None else "http",
        upstream_address=server.upstream.address if server is not None else None,
    )


class Pools:
    """The process's connection pools by origin, and its only TLS context: to make one takes 40 ms of CPU."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, int, bool], Pool] = {}
        self._context = lru_cache(maxsize=1)(ssl.create_default_context)

    def of(self, host: str, port: int, tls: bool) -> Pool:  # noqa: FBT001 - a part of the key
        key = (host, port, tls)
        if key not in self._pools:
            self._pools[key] = Pool(host, port, self._context() if tls else None)
        return self._pools[key]

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()


class WorkspaceRegistry:
    """The workspaces and tokens of one configuration."""

    def __init__(
        self,
        config: Config,
        pools: Pools,
        observe: Observe,
        timings: UpstreamTimings,
        before: "WorkspaceRegistry | None" = None,
    ) -> None:
        known = {(server.workspace_id, server.slug): server for server in before.servers()} if before else {}
        self.tokens: dict[bytes, Principal] = {}
        self.workspaces: dict[str, WorkspaceView] = {}
        self.paths: dict[str, WorkspaceView] = {}
        for slug, workspace in config.workspaces.items():
            servers = {}
            for server_slug, settings in workspace.servers.items():
                if not settings.enabled:
                    continue
                server = known.get((slug, server_slug))
                if server is None or server.settings != settings:
                    server = Server(slug, server_slug, settings, pool_for=pools.of, timings=timings, observe=observe)
                servers[server_slug] = server
            view = WorkspaceView(slug, workspace, servers)
            self.workspaces[slug] = view
            self.paths.update({prefix + slug + end: view for prefix in PATHS for end in ("", "/")})
            for token in workspace.tokens:
                rate = workspace.rate_of(token)
                self.tokens[bytes.fromhex(token.sha256)] = Principal(
                    slug,
                    token.id,
                    token.expires_at.timestamp() if token.expires_at else None,
                    limits.parse(rate) if rate else None,
                    lines.members(token_id=token.id),
                )

    def servers(self) -> Iterator[Server]:
        for view in self.workspaces.values():
            yield from view.servers.values()

    def principal(self, secret: bytes) -> Principal | None:
        """Whose token this is. It is found by its digest, so no secrets are compared."""
        return self.tokens.get(hashlib.sha256(secret).digest())
