"""Readings as Prometheus reads them: OpenMetrics with exemplars, or the plain text format."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client import Metric as PrometheusMetric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar, Sample
from prometheus_client.utils import floatToGoString

from gateway.observer.samples import Family, HistogramReading, Reading
from gateway.observer.signals import Metric

_INF: Final = "+Inf"


class FamiliesCollector(Collector):
    """Collects what `read` gives, whose metrics are all in `metrics`."""

    def __init__(self, metrics: Iterable[Metric], read: Callable[[], Iterable[Family]]) -> None:
        self._metrics = tuple(metrics)
        self._read = read

    def describe(self) -> Iterator[PrometheusMetric]:
        """The metrics without a sample: the registry refuses a second collector of one of them."""
        for metric in self._metrics:
            yield _empty(metric)

    def collect(self) -> Iterator[PrometheusMetric]:
        """The metrics as they are now; one of which there is nothing is left out."""
        for family in self._read():
            if family.readings:
                yield _metric(family)


def exposition(registry: CollectorRegistry, accept_header: str | None) -> tuple[bytes, str]:
    """The body and the content type of an answer to a scrape. It takes a while: not for an event loop."""
    encode, content_type = choose_encoder(accept_header or "")
    if isinstance(encode, partial) and encode.keywords.get("escaping") == UNDERSCORES:
        # No name here needs escaping, so both ways write the same; this one takes half the time.
        encode = partial(encode.func, **{**encode.keywords, "escaping": ALLOWUTF8})
    return encode(registry), content_type


def _empty(metric: Metric) -> PrometheusMetric:
    return PrometheusMetric(metric.family, metric.help, metric.kind, metric.unit)


def _metric(family: Family) -> PrometheusMetric:
    metric = family.metric
    result = _empty(metric)
    bounds = [*map(floatToGoString, metric.buckets), _INF]
    samples = result.samples
    for reading in family.readings:
        labels = dict(zip(metric.labels, reading.labels, strict=True))
        if isinstance(reading, Reading):
            samples.append(Sample(metric.name, labels, reading.value))
        else:
            samples.extend(_samples(metric.name, bounds, labels, reading))
    return result


def _samples(name: str, bounds: list[str], labels: dict[str, str], reading: HistogramReading) -> Iterator[Sample]:
    exemplars = [_exemplar(*kept) if kept else None for kept in reading.exemplars] or [None] * len(bounds)
    bucket = f"{name}_bucket"
    total = 0
    for bound, total, exemplar in zip(bounds, accumulate(reading.counts), exemplars, strict=True):
        yield Sample(bucket, {**labels, "le": bound}, total, None, exemplar)
    yield Sample(f"{name}_count", labels, total)
    yield Sample(f"{name}_sum", labels, reading.sum_ms / 1e3)


def _exemplar(trace_id: str, ms: float, timestamp_ns: int) -> Exemplar:
    return Exemplar({"trace_id": trace_id}, ms / 1e3, timestamp_ns / 1e9)
