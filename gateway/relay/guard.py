"""Bounds one call: its deadline, and a client that goes away. One timer a call; no task, unless the call is slow."""

import asyncio
from typing import Final, Literal

from starlette.types import Receive

WATCH_AFTER_S: Final = 0.05
"""Only a call that lasts longer is worth a task that waits for its client to disconnect."""


class Guard:
    """Cancels the task that made it when the time is up or the client is gone; `reason` says which.

    The owner catches `CancelledError`: without a `reason` it came from elsewhere, and goes on its way.
    """

    __slots__ = ("_deadline", "_loop", "_receive", "_task", "_timer", "_watcher", "reason")

    def __init__(self, receive: Receive, timeout: float) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._task = task
        self._loop = task.get_loop()
        self._receive = receive
        self._deadline = self._loop.time() + timeout
        self._watcher: asyncio.Task[None] | None = None
        self.reason: Literal["timeout", "disconnected"] | None = None
        self._timer = self._loop.call_later(min(WATCH_AFTER_S, timeout), self._tick)

    def stop(self) -> None:
        """The call has ended in time."""
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    def claim(self) -> bool:
        """Whether the cancellation that was caught is this guard's; if so, the task is not cancelled any more."""
        if self.reason is None:
            return False
        self._task.uncancel()
        return True

    def _tick(self) -> None:
        if self._loop.time() >= self._deadline:
            self._cancel("timeout")
            return
        if self._watcher is None:
            self._watcher = self._loop.create_task(self._watch())
        self._timer = self._loop.call_at(self._deadline, self._tick)

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._cancel("disconnected")

    def _cancel(self, reason: Literal["timeout", "disconnected"]) -> None:
        if self.reason is None:
            self.reason = reason
            self._timer.cancel()
            self._task.cancel()
