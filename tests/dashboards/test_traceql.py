"""Every TraceQL query is one."""

import pytest

from dashboards.queries.traces import ONE
from gateway.observer import signals
from tests.dashboards.interpolation import interpolated
from tests.dashboards.reading import Query, queries
from tests.dashboards.traceql import attributes

SEARCHES = [query for query in queries("tempo") if query.text != ONE]
NAMED = {value for value in vars(signals).values() if isinstance(value, str)}


@pytest.mark.parametrize("query", SEARCHES, ids=str)
def test_a_search_is_traceql_and_names_attributes_that_there_are(query: Query) -> None:
    [named] = attributes(interpolated(query.text))

    assert named, query.text
    for attribute in named:
        scope, _, name = attribute.partition(".")
        assert scope in {"resource", "span"}
        assert name in NAMED | {"service.name"}


def test_what_is_no_traceql_is_found_out() -> None:
    assert attributes("{ span.a = 1 }", "{ span.a == 1 }", "{ span.a = 1 } | selec(span.a)") == [["span.a"], None, None]
