"""Ends requests that are not to go on: the time is up, the client has disconnected, or it has cancelled the request.

One timer serves all requests. Only a slow one gets a task of its own, which waits for the client to disconnect.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from msgspec import Raw
from starlette.types import Receive

from gateway.mcp.jsonrpc import Id
from gateway.relay.sessions import LegacySession
from gateway.upstream.base import Client, UpstreamResponse

Reason = Literal["timeout", "disconnected", "cancelled"]

SWEEP_S: Final = 0.05
"""How exact a deadline is. A request that is older than two sweeps gets a task that waits for the disconnect."""


class RequestKey(NamedTuple):
    """What a legacy client names a request by when it cancels it."""

    workspace_id: str
    token_id: str
    session: LegacySession | None
    request_id: Id


@dataclass(slots=True, eq=False)
class CancelScope:
    """Cancels the task of one request; `reason` says why.

    The request catches `CancelledError` and asks `uncancel` whether it was this scope that cancelled it.
    """

    task: asyncio.Task[Any] | None
    receive: Receive
    deadline_ns: int
    key: RequestKey | None
    """None: no message of the client can cancel it."""
    is_slow: bool = False
    """Whether a sweep has seen it: the next sweep starts the watcher."""
    watcher: asyncio.Task[None] | None = None
    reason: Reason | None = None
    _pauses: int = 0
    _left_ns: int = 0

    def cancel(self, reason: Reason) -> None:
        if self.reason is None and self.task is not None:
            self.reason = reason
            self.task.cancel()

    def uncancel(self) -> bool:
        """Undo the cancellation if this scope caused it; False: it came from elsewhere and has to be raised again."""
        if self.reason is None or self.task is None:
            return False
        self.task.uncancel()
        return True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop the clock while the client is asked for input; whoever asks it has a limit of its own."""
        if self._pauses == 0:
            self._left_ns = self.deadline_ns - time.perf_counter_ns()
            self.deadline_ns = sys.maxsize
        self._pauses += 1
        try:
            yield
        finally:
            self._pauses -= 1
            if self._pauses == 0:
                self.deadline_ns = time.perf_counter_ns() + self._left_ns

    async def watch(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.cancel("disconnected")


class CancelScopes:
    """Those of all requests in progress. The timer runs only while there are any."""

    def __init__(self) -> None:
        self._open: set[CancelScope] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, receive: Receive, timeout: float, key: RequestKey | None) -> CancelScope:
        """Bound the current task, which serves a request, to `timeout` seconds."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        deadline_ns = time.perf_counter_ns() + int(timeout * 1e9)
        cancel_scope = CancelScope(asyncio.current_task(self._loop), receive, deadline_ns, key)
        self._open.add(cancel_scope)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        return cancel_scope

    def close(self, cancel_scope: CancelScope) -> None:
        self._open.discard(cancel_scope)
        if cancel_scope.watcher is not None:
            cancel_scope.watcher.cancel()

    def cancel(self, key: RequestKey) -> None:
        """Cancel the request that a legacy client names.

        Without sessions the clients of one token may use the same ids: a key that fits two requests cancels neither.
        """
        named = [scope for scope in self._open if scope.key == key]
        if len(named) == 1:
            named[0].cancel("cancelled")

    def _sweep(self) -> None:
        now = time.perf_counter_ns()
        loop = asyncio.get_running_loop()
        for scope in self._open:
            if now >= scope.deadline_ns:
                scope.cancel("timeout")
            elif not scope.is_slow:
                scope.is_slow = True
            elif scope.watcher is None:
                scope.watcher = loop.create_task(scope.watch())
        self._timer = loop.call_later(SWEEP_S, self._sweep) if self._open else None


@asynccontextmanager
async def upstream_timeout(
    seconds: float, client: Client | None
) -> AsyncIterator[tuple[Client | None, asyncio.Timeout]]:
    """Bound what a server may take, without the time in which its client is asked for input.

    Gives the client as it is to be asked within the block, and the limit.

    Raises:
        TimeoutError: the block took longer.
    """
    async with asyncio.timeout(seconds) as limit:
        if client is None:
            yield None, limit
            return
        loop = asyncio.get_running_loop()
        ask, pauses, left = client.ask, 0, 0.0

        async def ask_paused(method: str, params: Raw) -> UpstreamResponse:
            nonlocal pauses, left
            if pauses == 0:
                left = (limit.when() or loop.time()) - loop.time()
                limit.reschedule(None)
            pauses += 1
            try:
                return await ask(method, params)
            finally:
                pauses -= 1
                if pauses == 0 and not limit.expired():
                    limit.reschedule(loop.time() + left)

        yield Client(client.capabilities, ask_paused, client.log_level), limit
