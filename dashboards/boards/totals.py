"""The numbers of all calls together that several dashboards begin with."""

from dashboards.boards import drilldowns
from dashboards.fields import FAILURES, GOOD, LATENCY
from dashboards.grafanalib_ext import Panel
from dashboards.panels import stat
from dashboards.promql import Scope
from dashboards.queries import calls
from dashboards.targets import at_once


def count(title: str, scope: Scope) -> Panel:
    """How many calls."""
    return stat(
        title,
        "Tool calls in the time range, approximately.",
        at_once(calls.count(scope)),
        unit="locale",
        decimals=0,
        links=[drilldowns.all_calls()],
        empty="0",
    )


def error_rate(title: str, scope: Scope) -> Panel:
    """Which share of them failed."""
    return stat(
        title,
        "The share of the calls that failed.",
        at_once(calls.failure_ratio(scope)),
        unit="percentunit",
        decimals=2,
        steps=FAILURES,
        first=GOOD,
        links=[drilldowns.failed_calls()],
        empty="no calls",
    )


def average(title: str, scope: Scope) -> Panel:
    """How long upstreams took."""
    return stat(
        title,
        "What upstreams took for a call, on average.",
        at_once(calls.average(scope)),
        unit="s",
        steps=LATENCY,
        first=GOOD,
        empty="no calls",
    )
