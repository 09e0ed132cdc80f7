"""The metrics as Prometheus reads them: metric families, and `/metrics` in OpenMetrics or the plain text format."""

from collections.abc import Iterable, Iterator
from functools import partial

import anyio
import anyio.to_thread
from prometheus_client import CollectorRegistry
from prometheus_client import Metric as MetricFamily
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.exposition import ALLOWUTF8, UNDERSCORES
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from gateway.observer.signals import Metric

Labels = tuple[str, ...]
"""Label values, in the order of the metric's label names."""


def metric_family(metric: Metric, values: Iterable[tuple[Labels, float]]) -> MetricFamily:
    """A counter's or a gauge's family with these series."""
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.family, metric.help, labels=metric.labels, unit=metric.unit)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def exposition(registry: CollectorRegistry, accept_header: str | None) -> tuple[bytes, str]:
    """The body and the content type of a response to a scrape. It takes a while: not for an event loop."""
    encode, content_type = choose_encoder(accept_header or "")
    if isinstance(encode, partial) and encode.keywords.get("escaping") == UNDERSCORES:
        # No name here needs escaping, so both ways write the same; this one takes half the time.
        encode = partial(encode.func, **{**encode.keywords, "escaping": ALLOWUTF8})
    return encode(_NonEmpty(registry)), content_type


class _NonEmpty(Collector):
    """A registry without the metrics that have no series now."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[MetricFamily]:
        return (family for family in self._registry.collect() if family.samples)


class MetricsEndpoint:
    """Answers one scrape at a time, in a thread: rendering takes a while."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one_at_a_time = anyio.CapacityLimiter(1)

    async def respond(self, request: Request) -> Response:
        """Every metric, in the format that the request accepts."""
        body, content_type = await anyio.to_thread.run_sync(
            exposition, self._registry, request.headers.get("accept"), limiter=self._one_at_a_time
        )
        return Response(body, headers={"Content-Type": content_type})
