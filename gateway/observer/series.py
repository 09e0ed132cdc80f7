"""Counters and histograms in memory, within a budget of series, and the metric families that Prometheus reads.

Durations are kept in milliseconds, as the records have them; the metric families have seconds.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, repeat
from typing import Final, Generic, TypeVar

from msgspec import Struct
from prometheus_client import Metric as MetricFamily
from prometheus_client.core import Exemplar, HistogramMetricFamily, Sample
from prometheus_client.utils import floatToGoString

from gateway.observer.exposition import Labels, metric_family
from gateway.observer.signals import OTHER, Metric

SavedExemplar = tuple[str, float, int]
"""Trace id, milliseconds, nanoseconds since the epoch. A plain tuple: one is made for each call."""

ESTABLISHED: Final = 0.0
"""`created` of a series that is exposed with its value, whatever the clock says."""
RESERVE: Final = 10
"""One in so many of a budget's label sets is kept for the series that count what is over the budget."""


class ValueSeries(Struct, array_like=True):
    """One series of a counter or of a timestamp gauge. `created` is in seconds since the epoch."""

    labels: Labels
    created: float
    value: int = 0
    """A gauge's is in nanoseconds since the epoch."""


class HistogramSeries(Struct, array_like=True):
    """One classic histogram: `counts` of each bucket, not cumulated, the last one is +Inf's."""

    labels: Labels
    created: float
    counts: list[int]
    sum_ms: float = 0.0
    exemplars: list[SavedExemplar | None] = []
    """The newest of each bucket; empty if the metric has none."""

    def observe(self, bounds_ms: Sequence[float], ms: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(bounds_ms, ms)] += 1
        self.sum_ms += ms

    def observe_traced(self, bounds_ms: Sequence[float], ms: float, trace_id: str, at_ns: int) -> None:
        """Count one duration of a trace, at a time in nanoseconds since the epoch; the newest is the exemplar."""
        bucket = bisect_left(bounds_ms, ms)
        self.counts[bucket] += 1
        self.sum_ms += ms
        exemplar = self.exemplars[bucket]
        if exemplar is None or at_ns >= exemplar[2]:
            self.exemplars[bucket] = (trace_id, ms, at_ns)


S = TypeVar("S", bound=ValueSeries | HistogramSeries)


class SeriesFamily(ABC, Generic[S]):
    """The series of one metric, by their label values, of which no more are made than `max_label_sets`.

    Over nine tenths of the budget, what is new is counted with the metric's first collapsible label as `__other__`;
    when the last tenth is full too, with all of them. The labels that are left then have few values, so that such a
    series is made whatever the budget: nothing is left out of a sum.
    """

    def __init__(self, metric: Metric, max_label_sets: int) -> None:
        self.metric = metric
        self.series: dict[Labels, S] = {}
        self._max = max_label_sets
        self._max_detailed = max_label_sets - max(max_label_sets // RESERVE, 1)
        self._collapsible: list[int] = [metric.labels.index(label) for label in metric.collapse]

    def find(self, labels: Labels, now: float) -> S:
        """The series that counts for `labels`, made at `now` if it is new. Over the budget it has other labels."""
        series = self.series.get(labels)
        room = self._max_detailed
        for place in self._collapsible:
            if series is not None or len(self.series) < room:
                break
            room = self._max
            labels = (*labels[:place], OTHER, *labels[place + 1 :])
            series = self.series.get(labels)
        if series is None:
            series = self.series[labels] = self._make(labels, now)
        return series

    def restore(self, series: Sequence[S]) -> None:
        """Take over what was saved."""
        self.series = {one.labels: one for one in series}

    @abstractmethod
    def snapshot(self, now: float, birth_interval: float) -> Callable[[], MetricFamily]:
        """Copy the series as they are exposed at `now`. What is returned builds the family from the copy alone."""

    @abstractmethod
    def _make(self, labels: Labels, now: float) -> S: ...


class ValueFamily(SeriesFamily[ValueSeries]):
    """The series of one counter, or of one gauge that is a point in time."""

    def snapshot(self, now: float, birth_interval: float) -> Callable[[], MetricFamily]:
        every = self.series.values()
        values: list[tuple[Labels, float]]
        if self.metric.kind == "gauge":
            values = [(one.labels, one.value / 1e9) for one in every]
        else:
            values = [(one.labels, 0 if _is_new(one, now, birth_interval) else one.value) for one in every]
        return partial(metric_family, self.metric, values)

    def _make(self, labels: Labels, now: float) -> ValueSeries:
        return ValueSeries(labels, now)


class HistogramFamily(SeriesFamily[HistogramSeries]):
    """The series of one histogram."""

    def __init__(self, metric: Metric, max_label_sets: int, *, exemplars: bool = False) -> None:
        super().__init__(metric, max_label_sets)
        self.bounds_ms = tuple(round(bound * 1e3, 6) for bound in metric.buckets)
        self._bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
        self._exemplars = exemplars

    def restore(self, series: Sequence[HistogramSeries]) -> None:
        """Take over what was saved, perhaps by a version that kept no exemplars of this metric."""
        super().restore(series)
        for one in series:
            one.exemplars = one.exemplars or self._no_exemplars()

    def snapshot(self, now: float, birth_interval: float) -> Callable[[], MetricFamily]:
        copies = [
            self._make(one.labels, now)
            if _is_new(one, now, birth_interval)
            else HistogramSeries(one.labels, now, one.counts.copy(), one.sum_ms, one.exemplars.copy())
            for one in self.series.values()
        ]
        return partial(self._family, copies)

    def _make(self, labels: Labels, now: float) -> HistogramSeries:
        return HistogramSeries(labels, now, [0] * len(self._bounds), 0.0, self._no_exemplars())

    def _no_exemplars(self) -> list[SavedExemplar | None]:
        return [None] * len(self._bounds) if self._exemplars else []

    def _family(self, copies: Sequence[HistogramSeries]) -> MetricFamily:
        metric = self.metric
        family = HistogramMetricFamily(metric.family, metric.help, labels=metric.labels, unit=metric.unit)
        add = family.samples.append  # `add_metric` writes the same, and takes twice as long
        bucket = f"{metric.name}_bucket"
        for one in copies:
            labels = dict(zip(metric.labels, one.labels, strict=True))
            exemplars = [saved and prometheus_exemplar(saved) for saved in one.exemplars] or repeat(None)
            total = 0
            for bound, total, exemplar in zip(self._bounds, accumulate(one.counts), exemplars, strict=False):
                add(Sample(bucket, {**labels, "le": bound}, total, None, exemplar))
            add(Sample(f"{metric.name}_count", labels, total))
            add(Sample(f"{metric.name}_sum", labels, one.sum_ms / 1e3))
        return family


def prometheus_exemplar(saved: SavedExemplar) -> Exemplar:
    trace_id, ms, timestamp_ns = saved
    return Exemplar({"trace_id": trace_id}, ms / 1e3, timestamp_ns / 1e9)


def _is_new(series: ValueSeries | HistogramSeries, now: float, birth_interval: float) -> bool:
    """Whether the series is exposed as 0. Once it is established it stays so, even if the clock is set back."""
    if series.created == ESTABLISHED:
        return False
    if 0 <= now - series.created < birth_interval:
        return True
    series.created = ESTABLISHED
    return False
