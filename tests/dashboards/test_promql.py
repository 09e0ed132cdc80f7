"""Every PromQL query is one, and asks for what the gateway exports; and all that it exports is asked for."""

import re
from typing import Final

import pytest
import yaml

from dashboards.promql import Scope
from gateway.observer import signals
from gateway.observer.signals import METRICS, PROCESS_METRICS
from tests.dashboards.generated_boards import BOARDS, RULES, Query, annotations, queries, variables
from tests.dashboards.linter import READ_BY
from tests.dashboards.promql import groupings, parsed, selectors
from tests.dashboards.series import labels_of

NOT_SHOWN: Final = {
    "process_virtual_memory_bytes": "address space says nothing: DuckDB and threads reserve what they never touch",
}
"""What is exported and deliberately in no dashboard."""


def recorded() -> set[str]:
    """The names of the recording rules."""
    return {
        rule["record"]
        for path in sorted(RULES.glob("*.y*ml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def asked() -> list[Query]:
    """Every PromQL query: of panels, variables and annotations."""
    found = queries("prometheus")
    for uid, board in BOARDS.items():
        found += [
            Query(uid, f"${name}", "prometheus", re.sub(r"^\w+\((.+?)(?:, \w+)?\)$", r"\1", variable["definition"]), {})
            for name, variable in variables(board).items()
            if variable["type"] == "query"
        ]
        found += [Query(uid, note["name"], "prometheus", note["expr"], {}) for note in annotations(board)]
    return found


@pytest.mark.parametrize("query", asked(), ids=lambda query: f"{query.board}: {query.panel}")
def test_a_query_asks_for_series_and_labels_that_there_are(query: Query) -> None:
    for selector in selectors(parsed(query.text)):
        labels = labels_of(selector.metric)
        assert labels is not None, f"{selector.metric} is not exported"
        assert set(selector.matchers) <= labels, selector


@pytest.mark.parametrize("query", queries("prometheus"), ids=str)
def test_a_query_groups_by_labels_that_it_has(query: Query) -> None:
    for labels, inner in groupings(parsed(query.text)):
        having = [labels_of(selector.metric) or set() for selector in selectors(inner)]
        assert set(labels) <= set().union(*having, {"name"}), labels


@pytest.mark.parametrize("query", queries("prometheus"), ids=str)
def test_a_counter_is_read_by_its_increase(query: Query) -> None:
    """But for `group`, which asks only whether a series is there."""
    for selector in selectors(parsed(query.text)):
        if selector.metric.endswith(("_total", "_bucket", "_count", "_sum")):
            assert selector.within in READ_BY, selector


@pytest.mark.parametrize("query", [query for query in queries("prometheus") if "resets(" in query.text], ids=str)
def test_an_exact_increase_is_of_one_selector(query: Query) -> None:
    exact = re.compile(
        r"max_over_time\((?P<of>.+?)\) - min_over_time\((?P=of)\) "
        r"unless resets\((?P=of)\) > 0 or increase\((?P=of)\)"
    )
    left = exact.sub("", query.text)

    assert not re.search("max_over_time|min_over_time|resets", left), left


def test_everything_that_is_exported_is_in_a_dashboard_or_left_out_for_a_reason() -> None:
    names = {selector.metric for query in asked() for selector in selectors(parsed(query.text))}
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} | names

    assert {metric.name for metric in METRICS} <= families
    assert set(PROCESS_METRICS) - names == set(NOT_SHOWN)
    assert all(NOT_SHOWN.values())


def test_a_number_that_many_replicas_say_is_not_added_up() -> None:
    """What the ledger counts, and what the configuration says, each replica says of the same thing."""
    said_by_each = {
        signals.USAGE_CALLS.name,
        signals.USAGE_PERIOD_END.name,
        signals.PLAN_LIMIT_CALLS.name,
        signals.TOOLS.name,
        signals.TOOLS_LIST_BYTES.name,
    }
    for query in queries("prometheus"):
        for selector in selectors(parsed(query.text)):
            assert selector.metric not in said_by_each or selector.within == "max", query.text


def test_a_matcher_of_a_label_that_the_metric_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match='mcp_gateway_tool_calls_total: has no label for sink="x"'):
        Scope().select(signals.TOOL_CALLS, 'sink="x"')


def test_a_selector_is_narrowed_down_by_the_labels_that_its_metric_has() -> None:
    scope = Scope("workspace", "tool", "token")

    assert scope.select(signals.OVERHEAD) == 'mcp_gateway_overhead_seconds{job=~"$job", workspace=~"$workspace"}'
    assert (
        scope.recorded("workspace_token:calls:increase5m")
        == 'workspace_token:calls:increase5m{job=~"$job", workspace=~"$workspace", token=~"$member"}'
    )


def test_the_recording_rules_that_dashboards_read_are_there() -> None:
    read = {name for query in asked() for name, *_ in selectors(parsed(query.text)) if ":" in name}

    assert read
    assert read <= recorded()
