"""Who wants to hear of which changes of a workspace, and from which servers they come.

A listener is told of kinds and URIs, not of messages: a slow one hears of a hundred changes as of one.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final, Protocol

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.mcp import capabilities, jsonrpc, subscriptions
from gateway.mcp.subscriptions import RESOURCE_UPDATED, Filter
from gateway.relay import resources
from gateway.relay.registry import Server, WorkspaceRegistry, WorkspaceView
from gateway.upstream.base import UpstreamError

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S: Final = 5.0
AGAIN_S: Final = 30.0
"""After which a server is looked for anew for what nobody could follow since the directory was replaced."""
LISTS: Final = (
    "notifications/tools/list_changed",
    "notifications/prompts/list_changed",
    "notifications/resources/list_changed",
)

Places = dict[str, tuple[Server, ...]]
"""By URI: the servers that follow the resource."""
RefusedUris = dict[str, UpstreamError | None]
"""By URI: why no server follows the resource; None: there is no server that could."""


class Subscriber(Protocol):
    """Somebody who hears of changes."""

    @property
    def wanted(self) -> Filter:
        """What it wants to hear of."""

    def note(self, method: str, params: jsonrpc.Params) -> None:
        """A change that it wants to hear of."""

    def look(self) -> None:
        """The configuration has changed: its token may be gone."""


class SubscriptionRegistry:
    """Of every workspace. The directory may be replaced at any time: then `follow` is called."""

    def __init__(self, directory: Callable[[], WorkspaceRegistry]) -> None:
        self._directory = directory
        self._listeners: dict[str, dict[Subscriber, str]] = {}
        """With the token on whose behalf each listens."""
        self._heard: dict[str, dict[Server, Callable[[], None]]] = {}
        self._places: dict[str, Places] = {}
        self._moved: dict[str, Places] = {}
        """Where resources were followed before the directory was replaced, until they are followed anew."""
        self._unsettled: set[str] = set()
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, asyncio.TimerHandle] = {}
        self._closed = False

    async def add(self, workspace_id: str, token_id: str, listener: Subscriber) -> RefusedUris:
        """Tell a listener of changes from now on; it is done when the servers know what it wants to hear of.

        What is refused, the listener is not to want any more; then `settle`.
        """
        self._listeners.setdefault(workspace_id, {})[listener] = token_id
        self._hear(workspace_id)
        return await self.subscribe(workspace_id, token_id, listener.wanted.resource_subscriptions or ())

    def remove(self, workspace_id: str, listener: Subscriber) -> None:
        """Tell it no more; without a listener nobody is heard."""
        listeners = self._listeners.get(workspace_id, {})
        listeners.pop(listener, None)
        if not listeners:
            self._listeners.pop(workspace_id, None)
            for stop in self._heard.pop(workspace_id, {}).values():
                stop()
        if listener.wanted.resource_subscriptions:
            self.settle(workspace_id)

    async def subscribe(self, workspace_id: str, token_id: str, uris: Collection[str]) -> RefusedUris:
        """Have the servers follow `uris`, beside what else anybody wants to hear of: why not, of those of `uris`."""
        await self._place(workspace_id, token_id, uris)
        answers = await self._follow(workspace_id)
        refused: RefusedUris = {}
        for uri in uris:
            servers = self._places.get(workspace_id, {}).get(uri)
            why = [answers.get(server, {}).get(uri) for server in servers or ()]
            if servers is not None and all(why):  # else the directory was just replaced, and it is placed anew
                refused[uri] = why[0] if why else None
        return refused

    def settle(self, workspace_id: str) -> None:
        """Have the servers follow no more and no less than is wanted now, soon."""
        if self._closed:
            return
        self._unsettled.add(workspace_id)
        if workspace_id not in self._settling:
            self._settling[workspace_id] = asyncio.create_task(self._settle(workspace_id))

    def follow(self) -> None:
        """The directory is another one: hear its servers, and tell of what came and went with them."""
        for workspace_id, listeners in list(self._listeners.items()):
            before = set(self._heard.get(workspace_id, ()))
            self._hear(workspace_id)
            if before != set(self._heard.get(workspace_id, ())):
                for method in LISTS:
                    self._tell(workspace_id, method, {})
                places, moved = self._places.pop(workspace_id, {}), self._moved.get(workspace_id, {})
                self._moved[workspace_id] = {**places, **moved}
                self.settle(workspace_id)
            for listener in list(listeners):
                listener.look()

    def close(self) -> None:
        """The relay stops: every listener is to end."""
        self._closed = True
        for task in self._settling.values():
            task.cancel()
        for timer in self._again.values():
            timer.cancel()
        for listeners in list(self._listeners.values()):
            for listener in list(listeners):
                listener.look()

    # -- which server follows what

    def _wanted(self, workspace_id: str) -> Collection[str]:
        wanted = subscriptions.union(one.wanted for one in self._listeners.get(workspace_id, ()))
        return wanted.resource_subscriptions or ()

    async def _place(self, workspace_id: str, token_id: str, uris: Collection[str]) -> None:
        """Find out who can follow what has no place yet: whoever it is read from; if nobody lists it, all."""
        view = self._directory().workspaces.get(workspace_id)
        new = [uri for uri in uris if not self._places.get(workspace_id, {}).get(uri)]
        if view is None or not new:
            return
        unknown = next((uri for uri in new if view.resources.route(uri) is None), None)
        if unknown is not None:
            await resources.servers_of(view, unknown, token_id)  # one look at all the servers is enough
        if view is not self._directory().workspaces.get(workspace_id):
            await self._place(workspace_id, token_id, uris)
            return
        places = self._places.setdefault(workspace_id, {})
        for uri in new:
            servers = [view.servers[slug] for slug in view.resources.candidates(uri)]
            if view.resources.route(uri) is not None:
                servers = servers[:1]
            places[uri] = tuple(server for server in servers if can_follow(server))

    async def _follow(self, workspace_id: str) -> Mapping[Server, Mapping[str, UpstreamError]]:
        """Ask each server for what is wanted of it: why not, of what it does not follow.

        To the first request nothing is waited for: who comes later asks for what was wanted later.
        """
        view = self._directory().workspaces.get(workspace_id)
        if view is None:
            return {}
        wanted = self._wanted(workspace_id)
        places = self._places.get(workspace_id, {})
        for uri in places.keys() - wanted:
            del places[uri]
        followed: dict[Server, set[str]] = {server: set() for server in view.servers.values() if server.tells}
        for uri in places:
            for server in places[uri]:
                if server in followed:
                    followed[server].add(uri)
        answers = await asyncio.gather(*(_follow(server, frozenset(uris)) for server, uris in followed.items()))
        return dict(zip(followed, answers, strict=True))

    async def _settle(self, workspace_id: str) -> None:
        try:
            while workspace_id in self._unsettled:
                self._unsettled.discard(workspace_id)
                for listener, token_id in list(self._listeners.get(workspace_id, {}).items()):
                    await self._place(workspace_id, token_id, listener.wanted.resource_subscriptions or ())
                await self._follow(workspace_id)
                self._tell_moved(workspace_id)
        finally:
            del self._settling[workspace_id]
        places = self._places.get(workspace_id, {})
        if not all(places.get(uri) for uri in self._wanted(workspace_id)) and workspace_id not in self._again:
            self._again[workspace_id] = asyncio.get_running_loop().call_later(AGAIN_S, self._try_again, workspace_id)

    def _try_again(self, workspace_id: str) -> None:
        """A server that has the resource may have come up."""
        del self._again[workspace_id]
        self.settle(workspace_id)

    def _tell_moved(self, workspace_id: str) -> None:
        """Of resources that are followed elsewhere now nobody knows what they were there."""
        moved, places = self._moved.pop(workspace_id, {}), self._places.get(workspace_id, {})
        wanted = frozenset(self._wanted(workspace_id))
        for uri, servers in moved.items():
            if not places.get(uri):
                if uri in wanted:
                    self._moved.setdefault(workspace_id, {})[uri] = ()
            elif places[uri] != servers:
                self._tell(workspace_id, RESOURCE_UPDATED, {"uri": jsonrpc.raw(uri)})

    # -- hearing and telling

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


async def meet(view: WorkspaceView) -> None:
    """Learn what servers declare that were never met, and are not known to be down."""
    strangers = [one for one in view.servers.values() if one.upstream.declared is None and one.up is not False]
    await asyncio.gather(*(server.catalog.list() for server in strangers), return_exceptions=True)


def can_follow(server: Server) -> bool:
    """Whether a server declares that its resources can be followed."""
    declared = capabilities.read_server(server.upstream.declared)
    return declared.resources is not None and bool(declared.resources.subscribe)


async def _follow(server: Server, uris: frozenset[str]) -> Mapping[str, UpstreamError]:
    """Have its stream open, with these resources: why it does not follow those that it does not.

    A server that cannot be heard now is heard later.
    """
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            return await server.upstream.subscribe(uris)
    except TimeoutError:
        failed = UpstreamError(ErrorType.UPSTREAM_TIMEOUT, f"server {server.slug!r} took too long")
    except UpstreamError as error:
        failed = error
    logger.warning("server %s of %s cannot be heard: %s", server.slug, server.workspace_id, failed)
    return dict.fromkeys(uris, failed)
