"""Every TraceQL query is valid and names attributes that spans have."""

import pytest

from dashboards.queries.traces import ONE
from gateway.observer import signals
from tests.dashboards.generated_boards import Query, queries
from tests.dashboards.grammar import names
from tests.dashboards.interpolation import interpolated

pytestmark = pytest.mark.backend

SEARCHES = [query for query in queries("tempo") if query.text != ONE]
ATTRIBUTES = {value for value in vars(signals).values() if isinstance(value, str)} | {"service.name"}


@pytest.mark.parametrize("query", SEARCHES, ids=str)
def test_a_search_is_traceql_and_names_attributes_that_spans_have(query: Query) -> None:
    [used] = names("traceql", interpolated(query.text))

    assert used, query.text
    for attribute in used:
        scope, _, name = attribute.partition(".")
        assert scope in {"resource", "span"}
        assert name in ATTRIBUTES


def test_a_query_that_is_not_traceql_is_noticed() -> None:
    queries = ("{ span.a = 1 }", "{ span.a == 1 }", "{ span.a = 1 } | selec(span.a)")
    assert names("traceql", *queries) == [["span.a"], None, None]
