"""Bounds calls: their deadlines, clients that go away, and those that say that they do not wait any more.

One timer for all; a task only for a call that is slow.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal

from starlette.types import Receive

from gateway.mcp.jsonrpc import Id
from gateway.mcp.revisions import Era
from gateway.relay.active_call import Call
from gateway.relay.registry import Principal
from gateway.relay.sessions import LegacySession

Reason = Literal["timeout", "disconnected", "cancelled"]

SWEEP_S: Final = 0.05
"""How exact a deadline is, and how old a call is at least that gets a task, which waits for its client to go."""


class CancelScope:
    """One call's. It cancels the call's task when it is not to go on; `reason` says why.

    The call catches `CancelledError`: without a `reason` it came from elsewhere, and goes on its way.
    """

    __slots__ = ("_asking", "_left_ns", "call", "deadline_ns", "is_slow", "reason", "receive", "task", "watcher")

    def __init__(self, task: asyncio.Task[Any] | None, receive: Receive, deadline_ns: int, call: Call) -> None:
        self.task = task
        self.call = call
        self.receive = receive
        self.deadline_ns = deadline_ns
        self.is_slow = False
        """Whether a sweep has met it: the next one gives it a watcher."""
        self.watcher: asyncio.Task[None] | None = None
        self.reason: Reason | None = None
        self._asking = 0
        self._left_ns = 0

    def claim(self) -> bool:
        """Whether the cancellation that was caught is its own; if so, the task is not cancelled any more."""
        if self.reason is None or self.task is None:
            return False
        self.task.uncancel()
        return True

    def cancel(self, reason: Reason) -> None:
        """End the call, once."""
        if self.reason is None and self.task is not None:
            self.reason = reason
            self.task.cancel()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time stands still: it is the client that is waited for. Who waits bounds that."""
        if self._asking == 0:
            self._left_ns = self.deadline_ns - time.perf_counter_ns()
            self.deadline_ns = sys.maxsize
        self._asking += 1
        try:
            yield
        finally:
            self._asking -= 1
            if self._asking == 0:
                self.deadline_ns = time.perf_counter_ns() + self._left_ns

    async def watch(self) -> None:
        """Wait for the client to go."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.cancel("disconnected")


class CancelScopes:
    """Those of all calls under way. The timer runs only while there are any."""

    def __init__(self) -> None:
        self._open: set[CancelScope] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, receive: Receive, timeout: float, call: Call) -> CancelScope:
        """CancelScope the call whose task this is, for at most `timeout` seconds."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        cancel_scope = CancelScope(
            asyncio.current_task(self._loop), receive, time.perf_counter_ns() + int(timeout * 1e9), call
        )
        self._open.add(cancel_scope)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        return cancel_scope

    def end(self, cancel_scope: CancelScope) -> None:
        """The call has ended."""
        self._open.discard(cancel_scope)
        if cancel_scope.watcher is not None:
            cancel_scope.watcher.cancel()

    def cancel(self, owner: Principal, session: LegacySession | None, request_id: Id) -> None:
        """A legacy client does not wait for this request any more.

        Without sessions the clients of one token may use the same ids: if it is not clear whose request is meant, none
        is cancelled.
        """
        meant = [cancel_scope for cancel_scope in self._open if _is_of(cancel_scope.call, owner, session, request_id)]
        if len(meant) == 1:
            meant[0].cancel("cancelled")

    def _sweep(self) -> None:
        now = time.perf_counter_ns()
        for cancel_scope in self._open:
            if now >= cancel_scope.deadline_ns:
                cancel_scope.cancel("timeout")
            elif not cancel_scope.is_slow:
                cancel_scope.is_slow = True
            elif cancel_scope.watcher is None:
                cancel_scope.watcher = asyncio.get_running_loop().create_task(cancel_scope.watch())
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if self._open else None


def _is_of(call: Call, owner: Principal, session: LegacySession | None, request_id: Id) -> bool:
    request, by = call.request, call.principal
    return (
        request.era is Era.LEGACY
        and request.id == request_id
        and request.method != "initialize"
        and call.session is session
        and (by.workspace_id, by.token_id) == (owner.workspace_id, owner.token_id)
    )
