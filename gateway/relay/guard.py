"""Bounds calls: their deadlines, and clients that go away. One timer for all; a task only for a call that is slow."""

import asyncio
import time
from typing import Any, Final, Literal

from starlette.types import Receive

SWEEP_S: Final = 0.05
"""How exact a deadline is, and how old a call is at least that gets a task, which waits for its client to go."""


class Guard:
    """One call's. It cancels the call's task when the time is up or the client is gone; `reason` says which.

    The call catches `CancelledError`: without a `reason` it came from elsewhere, and goes on its way.
    """

    __slots__ = ("deadline_ns", "is_slow", "reason", "receive", "task", "watcher")

    def __init__(self, task: asyncio.Task[Any] | None, receive: Receive, deadline_ns: int) -> None:
        self.task = task
        self.receive = receive
        self.deadline_ns = deadline_ns
        self.is_slow = False
        """Whether a sweep has met it: the next one gives it a watcher."""
        self.watcher: asyncio.Task[None] | None = None
        self.reason: Literal["timeout", "disconnected"] | None = None

    def claim(self) -> bool:
        """Whether the cancellation that was caught is this guard's; if so, the task is not cancelled any more."""
        if self.reason is None or self.task is None:
            return False
        self.task.uncancel()
        return True

    def cancel(self, reason: Literal["timeout", "disconnected"]) -> None:
        """End the call, once."""
        if self.reason is None and self.task is not None:
            self.reason = reason
            self.task.cancel()

    async def watch(self) -> None:
        """Wait for the client to go."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.cancel("disconnected")


class Guards:
    """Those of all calls under way. The timer runs only while there are any."""

    def __init__(self) -> None:
        self._guards: set[Guard] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, receive: Receive, timeout: float) -> Guard:
        """Guard the call whose task this is, for at most `timeout` seconds."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        guard = Guard(asyncio.current_task(self._loop), receive, time.perf_counter_ns() + int(timeout * 1e9))
        self._guards.add(guard)
        if self._timer is None:
            self._timer = self._loop.call_later(SWEEP_S, self._sweep)
        return guard

    def end(self, guard: Guard) -> None:
        """The call has ended."""
        self._guards.discard(guard)
        if guard.watcher is not None:
            guard.watcher.cancel()

    def _sweep(self) -> None:
        now = time.perf_counter_ns()
        for guard in self._guards:
            if now >= guard.deadline_ns:
                guard.cancel("timeout")
            elif not guard.is_slow:
                guard.is_slow = True
            elif guard.watcher is None:
                guard.watcher = asyncio.get_running_loop().create_task(guard.watch())
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep) if self._guards else None
