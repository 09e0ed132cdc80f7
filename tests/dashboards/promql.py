"""PromQL as a test reads it: parsed by the grammar of Prometheus 2.45."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import promql_parser as promql

SETTLED: Final = {"$__rate_interval": "5m", "$__range_s": "3600", "$__range": "1h"}
"""Durations, where Grafana puts some."""


class Selector(NamedTuple):
    """A selector, and the function or aggregation that it stands in."""

    metric: str
    matchers: dict[str, str]
    """Values by label."""
    within: str
    """As `increase`, or `group`; empty if it stands alone."""


def settled(text: str) -> str:
    """A query with durations where Grafana puts them."""
    for name, value in SETTLED.items():
        text = text.replace(name, value)
    return text


def parsed(text: str) -> Any:
    """The expression's tree.

    Raises:
        ValueError: it is no PromQL.
    """
    return promql.parse(settled(text))


def selectors(expr: Any, within: str = "") -> Iterator[Selector]:
    """Every selector of an expression."""
    match expr:
        case promql.VectorSelector():
            matchers = {matcher.name: matcher.value for matcher in expr.matchers.matchers}
            yield Selector(str(expr.name), matchers, within)
        case promql.MatrixSelector():
            yield from selectors(expr.vector_selector, within)
        case promql.Call():
            for part in expr.args:
                yield from selectors(part, expr.func.name)
        case promql.AggregateExpr():
            yield from selectors(expr.expr, str(expr.op))
        case _:
            for part in _parts(expr):
                yield from selectors(part, within)


def groupings(expr: Any) -> Iterator[tuple[list[str], Any]]:
    """The labels of every `by (…)`, and what is aggregated."""
    if isinstance(expr, promql.AggregateExpr) and expr.modifier is not None:
        yield expr.modifier.labels, expr.expr
    for part in _parts(expr):
        yield from groupings(part)


def matchings(expr: Any) -> Iterator[tuple[list[str], Any]]:
    """The labels of every `on (…)`, and each of the two sides that are matched by them."""
    if isinstance(expr, promql.BinaryExpr) and expr.modifier is not None and expr.modifier.matching is not None:
        for side in (expr.lhs, expr.rhs):
            yield expr.modifier.matching.labels, side
    for part in _parts(expr):
        yield from matchings(part)


def _parts(expr: Any) -> list[Any]:
    match expr:
        case promql.AggregateExpr() | promql.ParenExpr() | promql.SubqueryExpr() | promql.UnaryExpr():
            return [expr.expr]
        case promql.BinaryExpr():
            return [expr.lhs, expr.rhs]
        case promql.Call():
            return list(expr.args)
        case _:
            return []
