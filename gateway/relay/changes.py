"""Who wants to hear of which changes of a workspace, and from which servers they come.

A listener is told of kinds and URIs, not of messages: a slow one hears of a hundred changes as of one.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc, subscriptions
from gateway.mcp.subscriptions import RESOURCE_UPDATED, Filter
from gateway.relay import resources
from gateway.relay.upstream.seam import UpstreamError
from gateway.relay.workspaces import Directory, Server, WorkspaceView

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S: Final = 5.0
LISTS: Final = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
)


class Listener(Protocol):
    """Somebody who hears of changes."""

    @property
    def wanted(self) -> Filter:
        """What it wants to hear of."""

    def note(self, method: str, params: jsonrpc.Params) -> None:
        """A change that it wants to hear of."""

    def look(self) -> None:
        """The configuration has changed: its token may be gone."""


class Changes:
    """Of every workspace. The directory may be replaced at any time: then `follow` is called."""

    def __init__(self, directory: Callable[[], Directory]) -> None:
        self._directory = directory
        self._listeners: dict[str, set[Listener]] = {}
        self._heard: dict[str, dict[Server, Callable[[], None]]] = {}

    async def add(self, workspace_id: str, token_id: str, listener: Listener) -> None:
        """Tell a listener of changes from now on; it is done when the servers know what it wants to hear of.

        Raises:
            UpstreamError: a server refuses to follow a resource.
        """
        self._listeners.setdefault(workspace_id, set()).add(listener)
        self._hear(workspace_id)
        try:
            await self.subscribe(workspace_id, token_id)
        except UpstreamError:
            self.remove(workspace_id, listener)
            raise

    def remove(self, workspace_id: str, listener: Listener) -> None:
        """Tell it no more; without a listener nobody is heard."""
        listeners = self._listeners.get(workspace_id, set())
        listeners.discard(listener)
        if not listeners:
            self._listeners.pop(workspace_id, None)
            for stop in self._heard.pop(workspace_id, {}).values():
                stop()

    async def subscribe(self, workspace_id: str, token_id: str) -> None:
        """Have the servers follow the resources that anybody wants to hear of.

        Raises:
            UpstreamError: a server refuses.
        """
        view = self._directory().workspaces.get(workspace_id)
        if view is None:
            return
        wanted = subscriptions.union(one.wanted for one in self._listeners.get(workspace_id, ()))
        followed: dict[Server, set[str]] = {server: set() for server in view.servers.values() if server.tells}
        for uri in wanted.resource_subscriptions or ():
            for server in (await resources.servers_of(view, uri, token_id))[:1]:
                followed.setdefault(server, set()).add(uri)
        await asyncio.gather(*(_follow(server, frozenset(uris)) for server, uris in followed.items()))

    def follow(self) -> None:
        """The directory is another one: hear its servers, and tell of what came and went with them."""
        for workspace_id, listeners in list(self._listeners.items()):
            before = set(self._heard.get(workspace_id, ()))
            self._hear(workspace_id)
            if before != set(self._heard.get(workspace_id, ())):
                for method in LISTS:
                    self._tell(workspace_id, method, {})
            for listener in list(listeners):
                listener.look()

    def close(self) -> None:
        """The relay stops: every listener is to end."""
        for listeners in list(self._listeners.values()):
            for listener in list(listeners):
                listener.look()

    def _hear(self, workspace_id: str) -> None:
        view: WorkspaceView | None = self._directory().workspaces.get(workspace_id)
        servers = set(view.servers.values()) if view is not None else set()
        heard = self._heard.setdefault(workspace_id, {})
        for gone in heard.keys() - servers:
            heard.pop(gone)()
        for server in servers - heard.keys():
            heard[server] = server.listen(partial(self._changed, workspace_id))

    def _changed(self, workspace_id: str, method: str, params: Raw) -> None:
        try:
            self._tell(workspace_id, method, jsonrpc.decode_params(params))
        except jsonrpc.NO_JSON as error:
            logger.warning("%s of a server of %s cannot be read: %s", method[:64], workspace_id, error)

    def _tell(self, workspace_id: str, method: str, params: jsonrpc.Params) -> None:
        uri = subscriptions.updated_uri(params) if method == RESOURCE_UPDATED else None
        for listener in list(self._listeners.get(workspace_id, ())):
            if listener.wanted.wants(method, uri):
                listener.note(method, params)


async def _follow(server: Server, uris: frozenset[str]) -> None:
    """Have its stream open, with these resources. Without any, a server that cannot be heard now is heard later."""
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await server.upstream.subscribe(uris)
    except TimeoutError as error:
        if uris:
            raise UpstreamError(ErrorType.UPSTREAM_TIMEOUT, f"server {server.slug!r} took too long") from error
    except UpstreamError as error:
        if uris:
            raise
        logger.warning("server %s of %s cannot be heard: %s", server.slug, server.workspace_id, error)
