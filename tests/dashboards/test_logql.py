"""Every LogQL query of dashboards, data sources and documents is valid and names labels that log records have."""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from gateway.calls import ErrorType, ToolCall
from gateway.observer.log_records import log_record
from tests.dashboards.generated_boards import ROOT, queries
from tests.dashboards.grammar import names
from tests.dashboards.interpolation import interpolated

pytestmark = pytest.mark.backend

PAGES: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROVISIONED: Final = ROOT / "grafana" / "provisioning" / "datasources" / "callscope.yaml"
BY_LOKI: Final = {"service_name", "trace_id", "span_id"}
"""What Loki adds to a record's own attributes."""
FAILED_CALL: Final = ToolCall(
    call_id="c1",
    timestamp_ns=1_700_000_000_000_000_000,
    workspace_id="engineering",
    token_id="alice",
    server_slug="github",
    tool_name="create_issue",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="00f067aa0ba902b7",
    upstream_span_id="b7ad6b7169203331",
    status="error",
    error_type=ErrorType.TOOL_ERROR,
    error_message="no such repository",
    upstream_response='{"isError":true}',
    duration_ms=33.5,
    total_ms=34.25,
)


def of_page(page: Path) -> list[str]:
    """The queries in a page's code blocks."""
    return re.findall(r"```logql\n(.+?)\n```", page.read_text(), re.DOTALL)


def of_data_source() -> str:
    """The query behind the link from a span to its log records."""
    sources = yaml.safe_load(PROVISIONED.read_text())["datasources"]
    [query] = [source["jsonData"]["tracesToLogsV2"]["query"] for source in sources if source["type"] == "tempo"]
    return str(query).replace("$${__tags}", 'service_name="callscope"').replace("$${__trace.traceId}", "1")


QUERIES: Final = [
    *(pytest.param(interpolated(query.text), id=str(query)) for query in queries("loki")),
    *(pytest.param(text, id=f"{page.name} {i}") for page in PAGES for i, text in enumerate(of_page(page))),
    pytest.param(of_data_source(), id="from a span to its log records"),
]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_logql_and_names_labels_that_log_records_have(query: str) -> None:
    labels = {item.key.replace(".", "_") for item in log_record(FAILED_CALL, {}).attributes} | BY_LOKI

    [used] = names("logql", query)

    assert used, query
    assert set(used) <= labels


def test_the_documents_have_examples() -> None:
    assert {page.name for page in PAGES if of_page(page)} >= {"walkthrough.md", "runbook.md"}


def test_a_query_that_is_not_logql_is_noticed() -> None:
    assert names("logql", '{a="b"} | c = "d"', '{a="b"} | c == ', 'sum by a (rate({a="b"}[1m]))') == [
        ["a", "c"],
        None,
        None,
    ]
