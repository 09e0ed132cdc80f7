"""Who hears of an upstream's changes: the fan-out between its streams and its listeners."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from msgspec import Raw

from gateway.calls import ErrorType
from gateway.mcp import capabilities, jsonrpc
from gateway.mcp.jsonrpc import Params
from gateway.mcp.subscriptions import CHANGES, RESOURCE_UPDATED, Filter
from gateway.upstream.base import Changed, UpstreamError

QUIET_S: Final = 0.1
"""A legacy server says on each of its streams that a list changed: within this they are one change, told twice."""


class ChangeNotifier:
    """The listeners of one upstream. Each list's change is told at once, and what follows soon once more at the end."""

    def __init__(self) -> None:
        self._listeners: dict[object, Changed] = {}
        self._quiet: dict[str, asyncio.TimerHandle] = {}
        self._again: dict[str, Raw] = {}

    def __bool__(self) -> bool:
        return bool(self._listeners)

    def add(self, changed: Changed) -> Callable[[], None]:
        """Add a listener; the function that is given back takes it away, once."""
        key = object()
        self._listeners[key] = changed

        def remove() -> None:
            self._listeners.pop(key, None)

        return remove

    def tell(self, method: str, params: Params) -> None:
        """Pass a notification on, if it is one of a change."""
        if method not in CHANGES or not self._listeners:
            return
        said = jsonrpc.raw(params)
        if method == RESOURCE_UPDATED:
            self._tell(method, said)
        elif method in self._quiet:
            self._again[method] = said
        else:
            self._tell(method, said)
            self._quiet[method] = asyncio.get_running_loop().call_later(QUIET_S, self._end_quiet, method)

    def tell_all(self, declared: Raw | None, uris: Iterable[str]) -> None:
        """Nobody knows what has changed: every list that may, and these resources."""
        can = capabilities.read_server(declared)
        for kind in ("tools", "prompts", "resources"):
            lists = getattr(can, kind)
            if lists is not None and lists.list_changed:
                self.tell(f"notifications/{kind}/list_changed", {})
        for uri in uris:
            self.tell(RESOURCE_UPDATED, {"uri": jsonrpc.raw(uri)})

    def close(self) -> None:
        """Tell nothing any more."""
        for timer in self._quiet.values():
            timer.cancel()
        self._quiet.clear()
        self._listeners.clear()

    def _end_quiet(self, method: str) -> None:
        del self._quiet[method]
        said = self._again.pop(method, None)
        if said is not None:
            self._tell(method, said)

    def _tell(self, method: str, params: Raw) -> None:
        for changed in list(self._listeners.values()):
            changed(method, params)


def wanted_of(declared: Raw | None, uris: frozenset[str]) -> Filter:
    """What to ask a modern server for: every list that it says may change, and these resources."""
    can = capabilities.read_server(declared)
    return Filter(
        tools_list_changed=(can.tools is not None and can.tools.list_changed) or None,
        prompts_list_changed=(can.prompts is not None and can.prompts.list_changed) or None,
        resources_list_changed=(can.resources is not None and can.resources.list_changed) or None,
        resource_subscriptions=tuple(sorted(uris)) or None,
    )


def refused(uri: str, error: Raw) -> UpstreamError:
    """Why a legacy server does not follow a resource, in its own words."""
    said = bytes(error)
    why = f"refused to subscribe to {uri[:200]!r}: {said[:200].decode('utf-8', 'replace')}"
    return UpstreamError(ErrorType.JSONRPC_ERROR, why, response=said)
