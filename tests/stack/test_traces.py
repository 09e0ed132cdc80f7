"""What the dashboards ask of traces is in the spans that the Collector passes on; Tempo itself is no native process."""

from collections import Counter

import pytest

from dashboards.queries.traces import ONE
from gateway.calls import PHASES
from tests.dashboards.generated_boards import Query, queries
from tests.dashboards.grammar import names
from tests.dashboards.interpolation import interpolated
from tests.stack.demo_stack import DemoStack, Row

SERVER, CLIENT = 2, 3
"""`kind` of a span in OTLP."""


@pytest.mark.parametrize("query", [query for query in queries("tempo") if query.text != ONE], ids=str)
def test_an_attribute_that_a_search_names_is_carried_by_spans(stack: DemoStack, query: Query) -> None:
    [named] = names("traceql", interpolated(query.text))
    assert named

    for attribute in named:
        owner, _, name = attribute.partition(".")
        assert any(name in span["resource" if owner == "resource" else "attributes"] for span in stack.spans()), name


def test_every_call_is_one_trace_with_its_phases(stack: DemoStack) -> None:
    by_trace: dict[str, list[Row]] = {}
    for span in stack.spans():
        by_trace.setdefault(span["traceId"], []).append(span)

    assert len(by_trace) == stack.counted.total()
    for spans in by_trace.values():
        kinds = Counter(span["kind"] for span in spans)
        assert kinds[SERVER] == 1
        assert kinds[CLIENT] <= 1
        [call] = [span for span in spans if span["kind"] == SERVER]
        assert {span["name"] for span in spans if span["kind"] not in {SERVER, CLIENT}} <= set(PHASES)
        parents = {span["spanId"] for span in spans} | {call.get("parentSpanId", "")}
        assert all(span.get("parentSpanId", "") in parents for span in spans)
