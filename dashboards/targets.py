"""Queries as panels take them: over time, at one moment, as rows, as lines."""

from dashboards.grafanalib_ext import LokiTarget, PrometheusTarget, TempoTarget


def over_time(expr: str, legend: str = "", *, exemplar: bool = False) -> PrometheusTarget:
    """A PromQL query at each point in time."""
    return PrometheusTarget(expr=expr, legend=legend, exemplar=exemplar)


def at_once(expr: str, legend: str = "") -> PrometheusTarget:
    """A PromQL query at the end of the time range."""
    return PrometheusTarget(expr=expr, legend=legend, instant=True)


def rows(expr: str) -> PrometheusTarget:
    """The same, as a table's rows."""
    return PrometheusTarget(expr=expr, instant=True, shape="table")


def buckets(expr: str) -> PrometheusTarget:
    """A histogram's buckets over time, as a heatmap takes them."""
    return PrometheusTarget(expr=expr, legend="{{le}}", shape="heatmap", exemplar=True)


def lines(expr: str, most: int = 500) -> LokiTarget:
    """Log lines."""
    return LokiTarget(expr=expr, max_lines=most)


def log_counts(expr: str, legend: str = "") -> LokiTarget:
    """A LogQL query of numbers, at each point in time."""
    return LokiTarget(expr=expr, legend=legend)


def log_count(expr: str, legend: str = "") -> LokiTarget:
    """A LogQL query of numbers, over the whole time range."""
    return LokiTarget(expr=expr, legend=legend, instant=True)


def traces(query: str, most: int | None = 20) -> TempoTarget:
    """A TraceQL query; a row of its answer is a span that it finds."""
    return TempoTarget(query=query, limit=most)
