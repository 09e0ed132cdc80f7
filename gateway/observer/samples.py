"""What a scrape reads: plain values by their labels, between whoever keeps them and whoever writes them out."""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.observer.series import ESTABLISHED, Exemplar, Histogram, Histograms, Labels, Value, Values
from gateway.observer.signals import Metric


class Reading(NamedTuple):
    """The value of one counter or gauge."""

    labels: Labels
    value: float


class HistogramReading(NamedTuple):
    """The state of one histogram: counts of each bucket, not cumulated, the last one is +Inf's."""

    labels: Labels
    counts: Sequence[int]
    sum_ms: float
    exemplars: Sequence[Exemplar | None]
    """Of each bucket; empty if there are none."""


class Family(NamedTuple):
    """One metric, and all that there is of it."""

    metric: Metric
    readings: Sequence[Reading] | Sequence[HistogramReading]


def read_values(values: Values, now: float, birth_interval: float) -> Family:
    """The counters of a metric; those that are newborn are 0."""
    return Family(
        values.metric,
        [
            Reading(series.labels, 0 if _newborn(series, now, birth_interval) else series.value)
            for series in values.series.values()
        ],
    )


def read_histograms(histograms: Histograms, now: float, birth_interval: float) -> Family:
    """The histograms of a metric; those that are newborn are 0, and have no exemplar."""
    nothing = [0] * (len(histograms.bounds_ms) + 1)
    return Family(
        histograms.metric,
        [
            HistogramReading(series.labels, nothing, 0.0, ())
            if _newborn(series, now, birth_interval)
            else HistogramReading(series.labels, series.counts.copy(), series.sum_ms, tuple(series.exemplars))
            for series in histograms.series.values()
        ],
    )


def read_timestamps(values: Values) -> Family:
    """Nanoseconds since the epoch as seconds; a point in time is never newborn."""
    return Family(values.metric, [Reading(series.labels, series.value / 1e9) for series in values.series.values()])


def _newborn(series: Value | Histogram, now: float, birth_interval: float) -> bool:
    """Once a series is grown it stays so, even if the clock is set back."""
    if series.birth == ESTABLISHED:
        return False
    if 0 <= now - series.birth < birth_interval:
        return True
    series.birth = ESTABLISHED
    return False
