"""How late event loops run: the worst of a time that is longer than a scrape interval, so that no peak is missed."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

WINDOW_S: Final = 15.0
PROBE_S: Final = 0.1


class WorstLag:
    """The greatest of the lags that were added in the last `WINDOW_S`. One thread adds, any may read."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()

    def add(self, lag_s: float, *, at_s: float) -> None:
        """Take a lag, and forget those that are too old at `at_s`."""
        self._lags.append((at_s, lag_s))
        while self._lags[0][0] < at_s - WINDOW_S:
            self._lags.popleft()

    @property
    def seconds(self) -> float:
        """The worst; 0 if there is none."""
        return max((lag_s for _, lag_s in self._lags.copy()), default=0.0)


class LoopProbe:
    """Measures the event loop that it runs in."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter, step_s: float = PROBE_S) -> None:
        self.worst = WorstLag()
        self._clock = clock
        self._step_s = step_s

    async def run(self) -> None:
        """Sleep in short steps, without end; what a step takes longer is the loop's lag."""
        while True:
            began = self._clock()
            await asyncio.sleep(self._step_s)
            now = self._clock()
            self.worst.add(max(now - began - self._step_s, 0.0), at_s=now)
