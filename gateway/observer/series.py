"""Counters and histograms in memory, within a budget. They know neither Prometheus nor a clock.

Durations are kept in milliseconds, as the records have them; whoever exposes them divides.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from msgspec import Struct

from gateway.observer.signals import OTHER, Metric

Labels = tuple[str, ...]
"""Label values, in the order of the metric's label names."""
Exemplar = tuple[str, float, int]
"""Trace id, milliseconds, nanoseconds since the epoch. A plain tuple: one is made for each call."""

ESTABLISHED: Final = 0.0
"""The birth of a series that is exposed with its value, whatever the clock says."""
RESERVE: Final = 10
"""One in so many of a budget's label sets is kept for the series that take what is over it."""


class Value(Struct, array_like=True):
    """One counter, or one gauge that only grows. `birth` is when it was made, in seconds since the epoch."""

    labels: Labels
    birth: float
    value: int = 0


class Histogram(Struct, array_like=True):
    """One classic histogram: `counts` of each bucket, not cumulated, the last one is +Inf's."""

    labels: Labels
    birth: float
    counts: list[int]
    sum_ms: float = 0.0
    exemplars: list[Exemplar | None] = []
    """The newest of each bucket; empty if the metric has none."""

    def observe(self, bounds_ms: Sequence[float], ms: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(bounds_ms, ms)] += 1
        self.sum_ms += ms

    def observe_of(self, bounds_ms: Sequence[float], ms: float, trace_id: str, at_ns: int) -> None:
        """Count one duration of a trace, at a time in nanoseconds since the epoch; the newest is the exemplar."""
        bucket = bisect_left(bounds_ms, ms)
        self.counts[bucket] += 1
        self.sum_ms += ms
        exemplar = self.exemplars[bucket]
        if exemplar is None or at_ns >= exemplar[2]:
            self.exemplars[bucket] = (trace_id, ms, at_ns)


S = TypeVar("S", bound=Value | Histogram)


class _Budgeted(Generic[S]):
    """The series of one metric, by their label values, of which no more are made than `max_label_sets`.

    Over nine tenths of the budget, what is new is counted with the metric's first collapsible label as `__other__`;
    when the last tenth is full too, with all of them. The labels that are left then have few values, so that such a
    series is made whatever the budget: nothing is left out of a sum.
    """

    def __init__(self, metric: Metric, max_label_sets: int) -> None:
        self.metric = metric
        self.series: dict[Labels, S] = {}
        self._most = max_label_sets
        self._most_detailed = max_label_sets - max(max_label_sets // RESERVE, 1)
        self._places: list[int] = [metric.labels.index(label) for label in metric.collapse]

    def find(self, labels: Labels, now: float) -> S:
        """The series that counts for `labels`, made at `now` if it is new. Over the budget it has other labels."""
        series = self.series.get(labels)
        room = self._most_detailed
        for place in self._places:
            if series is not None or len(self.series) < room:
                break
            room = self._most
            labels = (*labels[:place], OTHER, *labels[place + 1 :])
            series = self.series.get(labels)
        if series is None:
            series = self.series[labels] = self._make(labels, now)
        return series

    def restore(self, series: Sequence[S]) -> None:
        """Take over what was saved."""
        self.series = {one.labels: one for one in series}

    def _make(self, labels: Labels, now: float) -> S:
        raise NotImplementedError


class Values(_Budgeted[Value]):
    """The series of one counter."""

    def _make(self, labels: Labels, now: float) -> Value:
        return Value(labels, now)


class Histograms(_Budgeted[Histogram]):
    """The series of one histogram."""

    def __init__(self, metric: Metric, max_label_sets: int, *, exemplars: bool = False) -> None:
        super().__init__(metric, max_label_sets)
        self.bounds_ms = tuple(round(bound * 1e3, 6) for bound in metric.buckets)
        self._exemplars = exemplars

    def restore(self, series: Sequence[Histogram]) -> None:
        """Take over what was saved, perhaps by a version that kept no exemplars of this metric."""
        super().restore(series)
        for one in series:
            one.exemplars = one.exemplars or self._no_exemplars()

    def _make(self, labels: Labels, now: float) -> Histogram:
        return Histogram(labels, now, [0] * (len(self.bounds_ms) + 1), 0.0, self._no_exemplars())

    def _no_exemplars(self) -> list[Exemplar | None]:
        return [None] * (len(self.bounds_ms) + 1) if self._exemplars else []
