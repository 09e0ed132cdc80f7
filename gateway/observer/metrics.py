"""The metrics sink: the journal as Prometheus series that a restart of the observer does not disturb.

The law: what is exposed never goes back. Series and positions are saved together, what is behind the positions is read
again, and nothing is exposed that has not caught up with what an earlier process may have exposed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Final

from gateway.calls import DECISIONS, Heartbeat, Operation, ToolCall
from gateway.config import Config, Metrics
from gateway.journal import Batch
from gateway.journal.reader import Positions
from gateway.observer import metrics_state, signals
from gateway.observer.call_metrics import CallMetrics
from gateway.observer.config_metrics import Usage, read_configured
from gateway.observer.exposition import FamiliesCollector
from gateway.observer.samples import Family, read_histograms, read_timestamps, read_values
from gateway.observer.self_metrics import METRICS as INTERNALS
from gateway.observer.series import Labels
from gateway.observer.signals import Metric

logger = logging.getLogger(__name__)

CATCH_UP_S: Final = 30.0
"""Seconds for which the series may wait for the journal; what the process before had read is behind them by then."""

Tally = Callable[[], Mapping[Labels, int]]
"""What was counted elsewhere since this process began, by the labels' values."""


class _Counted:
    """What of a tally is in the series."""

    def __init__(self, metric: Metric, tally: Tally) -> None:
        self._metric = metric
        self._tally = tally
        self._taken: dict[Labels, int] = {}

    def take(self, call_metrics: CallMetrics, now: float) -> bool:
        """Take over what is new; whether there was anything."""
        changed = False
        for labels, number in self._tally().items():
            new = number - self._taken.get(labels, 0)
            call_metrics.add(self._metric, labels, new, now)
            self._taken[labels] = number
            changed |= new > 0
        return changed


class MetricsSink:
    """Counts calls, operations and heartbeats. `absorb` is for one thread, the rest for any.

    Raises:
        StartError: the state can neither be read nor be set aside.
    """

    name = "metrics"

    def __init__(
        self,
        state_path: Path,
        settings: Metrics,
        *,
        usage: Usage = dict,
        save_interval: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = state_path
        self._birth_interval = settings.birth_interval
        # A series must be saved before it is grown, or it would be born again when it has been seen.
        self._save_interval = min(save_interval, settings.birth_interval / 2 or save_interval)
        self._usage = usage
        self._clock = clock
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._call_metrics = CallMetrics(settings)
        self._positions: Positions = {}
        self._committed: Positions = {}
        self._config: Config | None = None
        self._counted: list[_Counted] = []
        self._behind_until = 0.0
        self._save_failed = False
        self._saved_at = clock()
        self._restore(self._saved_at)
        self.collector = FamiliesCollector([m for m in signals.METRICS if m not in INTERNALS], self.read)
        """For a registry."""

    @property
    def committed(self) -> Mapping[str, int]:
        """The positions that are saved, beside the series that they stand for."""
        return self._committed

    def configure(self, config: Config) -> None:
        """Expose this configuration's tokens, workspaces and plans from now on."""
        self._config = config
        now = self._clock()
        with self._lock:
            for workspace_id, decision in product(config.workspaces, DECISIONS):
                self._call_metrics.add(signals.USAGE_UNKNOWN, (workspace_id, decision), 0, now)

    def count_also(self, metric: Metric, tally: Tally) -> None:
        """Let a counter say also what `tally` does. It is taken over when the state is saved: it never goes back."""
        with self._lock:
            self._counted.append(_Counted(metric, tally))
            self._take_counted(self._clock())

    def process(self, batch: Batch) -> None:
        """Count what is new in the batch, and save if it is time; a batch that comes again changes nothing."""
        now = self._clock()
        with self._lock:
            self._count(batch, now)
            if batch.lag_bytes == 0:
                self._behind_until = 0.0
        if not 0 <= now - self._saved_at < self._save_interval:
            self.save()

    def save(self, *, closing: bool = False) -> None:
        """Write the state, if it has changed. If the disk refuses, it is logged, and tried again later."""
        with self._saving:
            now = self._saved_at = self._clock()
            with self._lock:
                changed = self._take_counted(now) or self._positions != self._committed
                positions = dict(self._positions)
                exposed_until = now if closing else now + self._save_interval
                data = metrics_state.encode(self._call_metrics, positions, exposed_until=exposed_until)
            if changed or closing:
                self._write(data, positions)

    def close(self) -> None:
        """Save, once no more comes."""
        self.save(closing=True)

    def read(self) -> Iterator[Family]:
        """Everything as it is now."""
        now = self._clock()
        if now >= self._behind_until:
            with self._lock:
                families = self._read_call_metrics(now)
            yield from families
        if self._config is not None:
            yield from read_configured(self._config, int(now * 1e9), self._usage)

    def _restore(self, now: float) -> None:
        try:
            state = metrics_state.read(self._path)
        except metrics_state.Unusable:
            self._call_metrics.drop(self.name, "corrupt_state", 1, now)
            state = None
        if state is not None:
            metrics_state.restore(self._call_metrics, state, now=now, birth_interval=self._birth_interval)
            self._positions, self._committed = dict(state.positions), state.positions
            self._behind_until = now + CATCH_UP_S
        self._call_metrics.begin(now)

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
                case _:
                    pass
            positions[writer] = offset
        self._positions = {writer: max(offset, positions.get(writer, 0)) for writer, offset in batch.positions.items()}

    def upstream_up(self, workspace_id: str, server_slug: str) -> bool | None:
        """Whether a server answered when it was last asked; None if no relay that lives knows."""
        with self._lock:
            return self._call_metrics.relays.up(self._now_ns()).get((workspace_id, server_slug))

    def catalog(self, workspace_id: str) -> set[tuple[str, str]]:
        """Server and tool of everything that a workspace offers, as far as the relays have seen it."""
        with self._lock:
            return self._call_metrics.relays.tools(workspace_id, self._now_ns())

    def relay_lag_s(self) -> float | None:
        """The worst lag of any living relay's event loop in the last seconds; None if no relay lives."""
        with self._lock:
            return self._call_metrics.relays.lag_s(self._now_ns())

    def _now_ns(self) -> int:
        return int(self._clock() * 1e9)

    def _read_call_metrics(self, now: float) -> list[Family]:
        call_metrics, interval = self._call_metrics, self._birth_interval
        values = call_metrics.values.values()
        return [
            *(read_values(v, now, interval) for v in values if v.metric.kind == "counter"),
            *(read_timestamps(v) for v in values if v.metric.kind == "gauge"),
            *(read_histograms(histograms, now, interval) for histograms in call_metrics.histograms.values()),
            *call_metrics.relays.read(int(now * 1e9)),
        ]

    def _take_counted(self, now: float) -> bool:
        """Whether there was anything new."""
        news = [counted.take(self._call_metrics, now) for counted in self._counted]  # all of them, whichever is new
        return any(news)

    def _write(self, data: bytes, positions: Positions) -> None:
        try:
            metrics_state.write(self._path, data)
        except OSError as error:
            if not self._save_failed:
                logger.error(  # noqa: TRY400 - the disk's reason is all
                    "%s: the metrics' state cannot be saved: %s; the journal is kept until it can", self._path, error
                )
            self._save_failed = True
            return
        self._save_failed = False
        self._committed = positions
