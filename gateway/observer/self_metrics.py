"""Metrics of the gateway itself: whether telemetry is late or lost, how late event loops run, which version runs."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client import Metric as MetricFamily
from prometheus_client.registry import Collector

from gateway.observer import signals
from gateway.observer.config_reload import ConfigReloader
from gateway.observer.exposition import metric_family
from gateway.observer.sinks import SinkWorker

LAG_WINDOW_S: Final = 15.0
"""Longer than a scrape interval, so that no peak is missed."""


class WorstLag:
    """The greatest of the lags that were added in the last `LAG_WINDOW_S`. One thread adds, any may read."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()

    def add(self, lag_s: float, *, at_s: float) -> None:
        self._lags.append((at_s, lag_s))
        while self._lags[0][0] < at_s - LAG_WINDOW_S:
            self._lags.popleft()

    @property
    def seconds(self) -> float:
        """The worst; 0 if there is none."""
        return max((lag_s for _, lag_s in self._lags.copy()), default=0.0)


class LoopLagProbe:
    """Measures the lag of the event loop that it runs in."""

    def __init__(self, *, clock: Callable[[], float] = time.perf_counter, step_s: float = 0.1) -> None:
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


class SelfMetrics(Collector):
    """The lag of sinks and event loops, and the outcomes of configuration reloads.

    `loop_lags` gives seconds by kind of process, None for a kind of which none runs.
    """

    def __init__(
        self,
        workers: Sequence[SinkWorker],
        reloader: ConfigReloader,
        loop_lags: Callable[[], Mapping[str, float | None]],
        *,
        version: str,
    ) -> None:
        self._workers = workers
        self._reloader = reloader
        self._loop_lags = loop_lags
        self._version = version

    def collect(self) -> Iterator[MetricFamily]:
        workers = self._workers
        yield metric_family(signals.SINK_LAG_SECONDS, [((worker.sink.name,), worker.lag_seconds) for worker in workers])
        yield metric_family(signals.SINK_LAG_BYTES, [((worker.sink.name,), worker.lag_bytes) for worker in workers])
        lags = self._loop_lags().items()
        yield metric_family(signals.EVENT_LOOP_LAG, [((kind,), lag) for kind, lag in lags if lag is not None])
        outcomes = self._reloader.outcomes
        yield metric_family(signals.CONFIG_RELOADS, [((status,), outcomes[status]) for status in ("success", "error")])
        yield metric_family(signals.CONFIG_VALID, [((), int(self._reloader.valid))])
        yield metric_family(signals.BUILD_INFO, [(("observer", self._version), 1)])
