"""Who subscribes to which notifications of a workspace, and which servers send them.

The subscribers of a workspace share one subscription to each of its servers: the union of what they want.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.mcp import capabilities, jsonrpc, subscriptions
from gateway.mcp.subscriptions import RESOURCE_UPDATED
from gateway.relay import resources
from gateway.relay.notification_stream import NotificationQueue
from gateway.relay.registry import Server, WorkspaceRegistry, WorkspaceView
from gateway.upstream.base import UpstreamError

logger = logging.getLogger(__name__)

_SUBSCRIBE_TIMEOUT_S: Final = 5.0
_LISTS_CHANGED: Final = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
)

RejectedUris = Mapping[str, UpstreamError | None]
"""By URI: why no server has a subscription to the resource. None: no server offers subscriptions to it."""


class WorkspaceSubscriptions:
    """The subscriptions of one workspace, over all reloads of its configuration."""

    def __init__(self, view: Callable[[], WorkspaceView | None]) -> None:
        """`view` gives the workspace as the newest configuration has it; None if it has it no longer."""
        self._view = view
        self.subscribers: dict[NotificationQueue, str] = {}
        """With the token on whose behalf each subscribes."""
        self._servers: set[Server] = set()
        """Those whose notifications come here."""
        self._located: dict[str, tuple[Server, ...]] = {}
        """By URI: the servers that have, or may have, the resource, and offer subscriptions."""
        self._located_before: dict[str, tuple[Server, ...]] = {}
        """The same before a reload, until the resource is located again."""
        self._synchronizing: asyncio.Task[None] | None = None
        self._stale = False
        """Whether what the servers know has to be brought up to date (once more)."""
        self._closed = False

    async def add(self, subscriber: NotificationQueue, token_id: str) -> RejectedUris:
        """Begin to notify a subscriber. Returns when the servers know its resources.

        The caller removes the rejected ones from the subscriber's filter and calls `synchronize`.
        """
        self.subscribers[subscriber] = token_id
        self._attach()
        return await self.subscribe(subscriber.filter.resource_subscriptions or (), token_id)

    def remove(self, subscriber: NotificationQueue) -> None:
        self.subscribers.pop(subscriber, None)
        if not self.subscribers:
            for server in self._servers:
                server.on_notification = None
            self._servers.clear()
        if subscriber.filter.resource_subscriptions:
            self.synchronize()

    async def subscribe(self, uris: Collection[str], token_id: str) -> RejectedUris:
        """Bring the servers up to date, after `uris` came to a subscriber's filter. Gives those that were rejected."""
        await self._locate(uris, token_id)
        rejections = await self._subscribe_servers()
        rejected: dict[str, UpstreamError | None] = {}
        for uri in uris:
            if uri not in self._located:  # a reload came between: it is located again, and notified
                continue
            errors = [rejections.get(server, {}).get(uri) for server in self._located[uri]]
            if all(errors):
                rejected[uri] = errors[0] if errors else None
        return rejected

    def synchronize(self) -> None:
        """Bring the servers up to date with what is wanted, in the background."""
        if self._closed:
            return
        self._stale = True
        if self._synchronizing is None:
            self._synchronizing = asyncio.create_task(self._synchronize())

    def retry(self) -> None:
        """Look again for the resources that no server has since a reload: a server may have come up."""
        if not all(self._located.get(uri) for uri in self._wanted()):
            self.synchronize()

    def reload(self) -> None:
        """The configuration was reloaded: servers and tokens may have come and gone."""
        if not self.subscribers:
            return
        before = set(self._servers)
        self._attach()
        if before != self._servers:
            for method in _LISTS_CHANGED:
                self._notify(method, {})
            self._located_before = {**self._located, **self._located_before}
            self._located = {}
            self.synchronize()
        for subscriber in list(self.subscribers):
            subscriber.wake()

    def close(self) -> None:
        self._closed = True
        if self._synchronizing is not None:
            self._synchronizing.cancel()
        for subscriber in list(self.subscribers):
            subscriber.wake()

    # -- subscriptions to the servers

    def _wanted(self) -> Collection[str]:
        """The resources that any subscriber wants."""
        return subscriptions.union(one.filter for one in self.subscribers).resource_subscriptions or ()

    async def _locate(self, uris: Collection[str], token_id: str) -> None:
        """Find the servers for `uris`: the one that each is read from, or all if none lists it."""
        view = self._view()
        new = [uri for uri in uris if not self._located.get(uri)]
        if view is None or not new:
            return
        unlisted = next((uri for uri in new if view.resources.route(uri) is None), None)
        if unlisted is not None:
            await resources.servers_of(view, unlisted, token_id)  # lists all servers anew, so once is enough
        if view is not self._view():  # a reload came between
            await self._locate(uris, token_id)
            return
        for uri in new:
            servers = [view.servers[slug] for slug in view.resources.candidates(uri)]
            if view.resources.route(uri) is not None:
                servers = servers[:1]
            self._located[uri] = tuple(server for server in servers if offers_subscriptions(server))

    async def _subscribe_servers(self) -> dict[Server, Mapping[str, UpstreamError]]:
        """Tell each server what is wanted of it. Gives, by server, which URIs it rejects and why.

        Concurrent runs do not wait for each other: each asks for what is wanted when it starts.
        """
        view = self._view()
        if view is None:
            return {}
        for uri in self._located.keys() - self._wanted():
            del self._located[uri]
        wanted: dict[Server, set[str]] = {server: set() for server in view.servers.values() if server.notifies}
        for uri, servers in self._located.items():
            for server in servers:
                if server in wanted:
                    wanted[server].add(uri)
        answers = await asyncio.gather(*(_subscribe(server, frozenset(uris)) for server, uris in wanted.items()))
        return dict(zip(wanted, answers, strict=True))

    async def _synchronize(self) -> None:
        try:
            while self._stale:
                self._stale = False
                for subscriber, token_id in list(self.subscribers.items()):
                    await self._locate(subscriber.filter.resource_subscriptions or (), token_id)
                await self._subscribe_servers()
                self._notify_relocated()
        finally:
            self._synchronizing = None

    def _notify_relocated(self) -> None:
        """A resource that is now another server's may have another content."""
        before, self._located_before = self._located_before, {}
        wanted = frozenset(self._wanted())
        for uri, servers in before.items():
            if not self._located.get(uri):
                if uri in wanted:
                    self._located_before[uri] = ()
            elif self._located[uri] != servers:
                self._notify(RESOURCE_UPDATED, {"uri": jsonrpc.raw(uri)})

    # -- notifications from the servers

    def _attach(self) -> None:
        view = self._view()
        servers = set(view.servers.values()) if view is not None else set()
        for server in self._servers - servers:
            server.on_notification = None
        for server in servers - self._servers:
            server.on_notification = self._on_notification
            server.open_stream()
        self._servers = servers

    def _on_notification(self, method: str, params: Raw) -> None:
        try:
            self._notify(method, jsonrpc.decode_params(params))
        except jsonrpc.DECODE_ERRORS as error:
            logger.warning("a server sent a malformed %s: %s", method[:64], error)

    def _notify(self, method: str, params: jsonrpc.Params) -> None:
        uri = subscriptions.updated_uri(params) if method == RESOURCE_UPDATED else None
        for subscriber in list(self.subscribers):
            if subscriber.filter.wants(method, uri):
                subscriber.put(method, params)


class SubscriptionRegistry:
    """The subscriptions of every workspace."""

    def __init__(self, registry: Callable[[], WorkspaceRegistry]) -> None:
        """`registry` gives the newest configuration's."""
        self._registry = registry
        self._workspaces: dict[str, WorkspaceSubscriptions] = {}
        self._closed = False

    def of(self, workspace_id: str) -> WorkspaceSubscriptions:
        found = self._workspaces.get(workspace_id)
        if found is None:
            found = WorkspaceSubscriptions(lambda: self._registry().workspaces.get(workspace_id))
            self._workspaces[workspace_id] = found
            if self._closed:
                found.close()
        return found

    def retry(self) -> None:
        for workspace in self._workspaces.values():
            workspace.retry()

    def reload(self) -> None:
        for workspace in self._workspaces.values():
            workspace.reload()

    def close(self) -> None:
        self._closed = True
        for workspace in self._workspaces.values():
            workspace.close()


async def list_unmet_servers(view: WorkspaceView) -> None:
    """Learn the capabilities of servers that never answered, except those that are known to be down."""
    unmet = [server for server in view.servers.values() if server.upstream.declared is None and server.up is not False]
    await asyncio.gather(*(server.catalog.list() for server in unmet), return_exceptions=True)


def offers_subscriptions(server: Server) -> bool:
    """Whether a server declares that clients can subscribe to its resources."""
    declared = capabilities.read_server(server.upstream.declared)
    return declared.resources is not None and bool(declared.resources.subscribe)


async def _subscribe(server: Server, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
    """Subscribe at one server to just these resources: why not, for those that it rejects.

    If it cannot be reached now, its upstream goes on trying.
    """
    try:
        async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_S):
            return await server.upstream.subscribe(uris)
    except TimeoutError:
        failed = UpstreamError(ErrorType.UPSTREAM_TIMEOUT, f"server {server.slug!r} took too long")
    except UpstreamError as error:
        failed = error
    logger.warning("no subscriptions at server %s of %s: %s", server.slug, server.workspace_id, failed)
    return dict.fromkeys(uris, failed)
