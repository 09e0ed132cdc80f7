"""The metrics sink: the journal as Prometheus series that a restart of the observer does not disturb.

The law: what is exposed never goes back. Series and positions are saved together, what is behind the positions is read
again, and nothing is exposed before it has caught up with what an earlier process may have exposed.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path

from prometheus_client import Metric as MetricFamily
from prometheus_client.registry import Collector

from gateway.calls import DECISIONS, Heartbeat, Operation, ToolCall
from gateway.config import Config, Metrics
from gateway.journal import Batch
from gateway.journal.reader import Positions
from gateway.observer import metrics_state, signals
from gateway.observer.call_metrics import CallMetrics
from gateway.observer.exposition import Labels
from gateway.observer.relay_metrics import RelayMetrics
from gateway.observer.signals import Metric
from gateway.observer.sinks import StateFile


class MetricsSink(Collector):
    """Counts calls, operations and heartbeats. `process` is for one thread, the rest for any.

    A restored state is hidden for at most `catch_up_seconds`, until the journal behind its positions has been read.

    Raises:
        StartError: the saved state cannot be read or set aside.
    """

    name = "metrics"

    def __init__(
        self,
        state_path: Path,
        settings: Metrics,
        *,
        save_interval: float = 5.0,
        catch_up_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = StateFile(state_path, "the metrics' state")
        self._birth_interval = settings.birth_interval
        # A series must be saved before it is established, or a restart would make it new after it has been seen.
        self._save_interval = min(save_interval, settings.birth_interval / 2 or save_interval)
        self._clock = clock
        self._lock = threading.Lock()
        """Over the series and the positions."""
        self._saving = threading.Lock()
        self._call_metrics = CallMetrics(settings)
        self.relays = RelayMetrics(clock)
        self._positions: Positions = {}
        self._committed: Positions = {}
        self._sources: list[tuple[Metric, Callable[[], Mapping[Labels, int]]]] = []
        self._added: Counter[tuple[str, Labels]] = Counter()
        """How much of each source is in the series."""
        self._hidden_until = 0.0
        self._saved_at = clock()
        self._restore(state_path, self._saved_at, catch_up_seconds)

    @property
    def committed(self) -> Mapping[str, int]:
        """The positions that are saved, beside the series that they stand for."""
        return self._committed

    def configure(self, config: Config) -> None:
        """Create the counters of each configured workspace."""
        now = self._clock()
        with self._lock:
            for workspace_id, decision in product(config.workspaces, DECISIONS):
                self._call_metrics.add(signals.USAGE_UNKNOWN, (workspace_id, decision), 0, now)

    def add_source(self, metric: Metric, source: Callable[[], Mapping[Labels, int]]) -> None:
        """Add to a counter what `source` has counted since this process began.

        It is added when the state is saved, so that the counter never goes back.
        """
        with self._lock:
            self._sources.append((metric, source))
            self._add_sources(self._clock())

    def process(self, batch: Batch) -> None:
        """Count what is new in the batch, and save if it is time. A batch that comes again changes nothing."""
        now = self._clock()
        with self._lock:
            self._count(batch, now)
            if batch.lag_bytes == 0:
                self._hidden_until = 0.0
        if not 0 <= now - self._saved_at < self._save_interval:
            self.save()

    def save(self, *, closing: bool = False) -> None:
        """Write the state, if it has changed."""
        with self._saving:
            now = self._saved_at = self._clock()
            with self._lock:
                changed = self._add_sources(now) or self._positions != self._committed
                positions = dict(self._positions)
                exposed_until = now if closing else now + self._save_interval
                data = metrics_state.encode(self._call_metrics, positions, exposed_until=exposed_until)
            if (changed or closing) and self._file.write(data, sync=True):
                self._committed = positions

    def close(self) -> None:
        """Save for the last time: nothing is processed after this."""
        self.save(closing=True)

    def collect(self) -> Iterator[MetricFamily]:
        """The series as they are now."""
        now = self._clock()
        if now < self._hidden_until:
            return
        with self._lock:  # for the copy alone: building the families takes long, and calls are counted meanwhile
            snapshots = [family.snapshot(now, self._birth_interval) for family in self._call_metrics.families]
        yield from (build() for build in snapshots)

    def _restore(self, path: Path, now: float, catch_up_seconds: float) -> None:
        try:
            state = metrics_state.read(path)
        except metrics_state.UnusableStateError:
            self._call_metrics.add(signals.RECORDS_DROPPED, (self.name, "corrupt_state"), 1, now)
            state = None
        if state is not None:
            metrics_state.restore(self._call_metrics, state, now=now, birth_interval=self._birth_interval)
            self._positions, self._committed = dict(state.positions), state.positions
            self._hidden_until = now + catch_up_seconds
        self._call_metrics.create_zeros(now)

    def _count(self, batch: Batch, now: float) -> None:
        call_metrics, positions = self._call_metrics, self._positions
        for event, writer, offset in batch.entries:
            if offset <= positions.get(writer, 0):
                continue
            match event:
                case ToolCall():
                    call_metrics.call(event, now)
                case Operation():
                    call_metrics.operation(event, now)
                case Heartbeat():
                    call_metrics.heartbeat(event, now)
                    self.relays.update(event)
                case _:
                    pass
            positions[writer] = offset
        self._positions = {writer: max(offset, positions.get(writer, 0)) for writer, offset in batch.positions.items()}

    def _add_sources(self, now: float) -> bool:
        """Whether any source has counted more since the last time."""
        changed = False
        for metric, source in self._sources:
            for labels, number in source().items():
                new = number - self._added[metric.name, labels]
                self._call_metrics.add(metric, labels, new, now)
                self._added[metric.name, labels] = number
                changed |= new > 0
        return changed
