"""Pieces of PromQL. A selector has only labels of its metric, and is narrowed down by the dashboard's variables."""

import re
from typing import Final

from gateway.observer.signals import BUILD_INFO, TOKEN_INFO, TOOL_CALLS, Metric

RATE: Final = "$__rate_interval"
"""The window of a rate: at least four scrapes, and at least a point of the chart."""
RANGE: Final = "$__range"
"""All of the time range that is shown."""
VARIABLES: Final = {"workspace": "workspace", "server": "server", "tool": "tool", "token": "member"}
"""The variable that narrows a label down."""
TARGET: Final = frozenset({"job", "instance"})
"""Labels that Prometheus itself gives to every series."""
_MATCHER: Final = re.compile(r'(\w+)(?:=|!=|=~|!~)"[^"]*"')


class Scope:
    """Which labels a dashboard's variables narrow its queries down by."""

    def __init__(self, *labels: str) -> None:
        """`labels` are keys of `VARIABLES`, or `instance`; every query is narrowed down by `job`."""
        self._labels = labels

    def select(self, metric: Metric, *matchers: str, suffix: str = "") -> str:
        """A selector; `suffix` is a histogram's `_bucket`, `_sum` or `_count`.

        Raises:
            ValueError: a matcher is none, or is of a label that the metric does not have.
        """
        for matcher in matchers:
            match = _MATCHER.fullmatch(matcher)
            if match is None or match[1] not in metric.labels:
                raise ValueError(f"{metric.name}: has no label for {matcher}")
        return self._selector(metric.name + suffix, frozenset(metric.labels), matchers)

    def recorded(self, rule: str, *matchers: str) -> str:
        """A selector of a recording rule, whose name begins with its labels: `workspace_token:…`."""
        labels = frozenset(rule.partition(":")[0].split("_"))
        return self._selector(rule, labels, matchers)

    def of_target(self, name: str) -> str:
        """A selector of a series that Prometheus itself writes about a target, as `up`."""
        return self._selector(name, frozenset())

    def own(self, expr: str) -> str:
        """An expression of `process_*`, of the observers alone: other software of the same job has them as well."""
        return f"{expr} and on (job, instance) {self.select(BUILD_INFO)}"

    def _selector(self, name: str, labels: frozenset[str], matchers: tuple[str, ...] = ()) -> str:
        narrowed = [
            f'{label}=~"${VARIABLES.get(label, label)}"' for label in self._labels if label in labels | {"instance"}
        ]
        return name + "{" + ", ".join(('job=~"$job"', *narrowed, *matchers)) + "}"


def aggregate(function: str, by: tuple[str, ...], expr: str) -> str:
    """`sum by (…) (…)`; without labels `sum(…)`."""
    return f"{function} by ({', '.join(by)}) ({expr})" if by else f"{function}({expr})"


def total(expr: str, *by: str) -> str:
    """The sum, over replicas and over every label that is not in `by`."""
    return aggregate("sum", by, expr)


def highest(expr: str, *by: str) -> str:
    """The highest: for what each replica says of the same thing."""
    return aggregate("max", by, expr)


def rate(selector: str) -> str:
    """A counter's increase a second."""
    return f"rate({selector}[{RATE}])"


def increase(selector: str, window: str = RANGE) -> str:
    """A counter's increase, extrapolated to the window's edges."""
    return f"increase({selector}[{window}])"


def gained(selector: str, window: str = RANGE) -> str:
    """A counter's increase between the first and the last sample of the window: whole calls, none made up at its edges.

    A counter goes back only when a gateway has lost its data; what it has gained then is left to `increase`. It reads
    each sample four times: for few series.
    """
    exact = f"max_over_time({selector}[{window}]) - min_over_time({selector}[{window}])"
    return f"{exact} unless resets({selector}[{window}]) > 0 or {increase(selector, window)}"


def ratio(part: str, whole: str) -> str:
    """A share, from 0 on; nothing where there is no whole. Both sides have the same labels."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def quantile(share: float, buckets: str, *by: str) -> str:
    """A quantile of a histogram; `buckets` is a rate, or an increase, of its `_bucket`."""
    return f"histogram_quantile({share:g}, {total(buckets, 'le', *by)})"


def top(count: int, expr: str) -> str:
    """The highest few, the highest first. For one moment, not over time: at each moment they are others."""
    return f"sort_desc(topk({count}, {expr}))"


def or_zero(expr: str) -> str:
    """0 instead of nothing; the expression has no labels."""
    return f"({expr}) or vector(0)"


def member_names(scope: Scope) -> str:
    """1 for each member, with workspace, token and name; a member who is gone is named by the token's id.

    A token has two names while replicas take over a change of it; the join must find one.
    """
    info = aggregate("group", ("workspace", "token", "name"), scope.select(TOKEN_INFO))
    seen = aggregate("group", ("workspace", "token"), scope.select(TOOL_CALLS))
    fallback = f'label_replace({seen}, "name", "$1", "token", "(.+)")'
    return f"(topk by (workspace, token) (1, {info}) or on (workspace, token) {fallback})"


def with_names(scope: Scope, expr: str) -> str:
    """An expression that has the labels workspace and token, with the label name."""
    return f"({expr}) * on (workspace, token) group_left (name) {member_names(scope)}"
