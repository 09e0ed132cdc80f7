"""No panel is empty two minutes after the first call."""

from typing import Final

import pytest

from tests.dashboards.generated_boards import Query, queries
from tests.dashboards.interpolation import interpolated
from tests.stack.demo_stack import DemoStack

EMPTY_IN_HEALTH: Final = {"Firing alerts": "the demo's mail server is down: that fills it"}
"""Panels that say nothing while all is well, and what fills them here."""


@pytest.mark.parametrize("query", queries("prometheus"), ids=str)
def test_a_panel_of_prometheus_has_rows(stack: DemoStack, query: Query) -> None:
    assert stack.prometheus(interpolated(query.text))


@pytest.mark.parametrize("query", queries("loki"), ids=str)
def test_a_panel_of_loki_has_rows(stack: DemoStack, query: Query) -> None:
    assert stack.loki(interpolated(query.text, trace_id=a_failure(stack)))


def test_what_is_empty_in_health_is_known_by_name() -> None:
    titles = {query.panel for query in queries("prometheus") if "ALERTS" in query.text}

    assert titles == set(EMPTY_IN_HEALTH)


def a_failure(stack: DemoStack) -> str:
    """The trace id of a call that failed with an answer of its upstream's."""
    calls = stack.api("engineering", "/calls", error_type="tool_error")["calls"]
    return str(calls[0]["trace_id"])
