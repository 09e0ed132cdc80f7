"""What Grafana is provisioned with: data sources that lead from a metric to its trace to its logs, and dashboards."""

import json
import re
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from gateway.calls import ErrorType, ToolCall
from gateway.observer import signals
from gateway.observer.attributes import resource
from gateway.observer.log_records import log_record
from gateway.observer.series import prometheus_exemplar
from gateway.observer.signals import METRICS
from gateway.observer.spans import spans
from tests.dashboards.generated_boards import BOARDS, panels, variables
from tests.dashboards.promql import parsed, selectors
from tests.stack.addresses import tree
from tests.stack.compose_file import ROOT, services

GRAFANA: Final = services()["grafana"]
FOLDER: Final = ROOT / "grafana" / "provisioning"
SAMPLES: Final = {
    f"{metric.name}{ending}": metric
    for metric in METRICS
    for ending in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}
"""Metrics by the names that can be asked for."""
CALL: Final = ToolCall(
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
    duration_ms=33.5,
    total_ms=34.25,
)


def expanded(text: str) -> str:
    """A value as Grafana takes it: `$$` is one $, and what a $ alone stands before would be an environment variable."""
    for part in text.split("$$"):
        assert "$" not in part, f"{text!r} would take an environment variable"
    return text.replace("$$", "$")


def _expanded(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _expanded(value) for key, value in part.items()}
    if isinstance(part, list):
        return [_expanded(value) for value in part]
    return expanded(part) if isinstance(part, str) else part


SOURCES: Final[dict[str, dict[str, Any]]] = {
    source["type"]: _expanded(source)
    for source in yaml.safe_load((FOLDER / "datasources" / "callscope.yaml").read_text())["datasources"]
}
"""Data sources by type: there is one of each."""
OPTIONS: Final = {kind: source["jsonData"] for kind, source in SOURCES.items()}
TO_LOGS: Final = OPTIONS["tempo"]["tracesToLogsV2"]
TO_METRICS: Final = OPTIONS["tempo"]["tracesToMetrics"]
FROM_EXEMPLARS: Final = OPTIONS["prometheus"]["exemplarTraceIdDestinations"]
FROM_LOGS: Final = OPTIONS["loki"]["derivedFields"]


def test_a_dollar_is_written_twice() -> None:
    assert expanded("{$${__tags}} | trace_id") == "{${__tags}} | trace_id"
    with pytest.raises(AssertionError, match="environment variable"):
        expanded("${__tags}")


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_each_dashboard_begins_with_data_sources_that_are_there(board: dict[str, Any]) -> None:
    chosen = {v["query"]: v["current"]["value"] for v in variables(board).values() if v["type"] == "datasource"}

    assert chosen
    assert chosen == {kind: SOURCES[kind]["uid"] for kind in chosen}


def test_the_sources_are_those_of_the_dashboards_and_alertmanager() -> None:
    asked = {v["query"] for board in BOARDS.values() for v in variables(board).values() if v["type"] == "datasource"}

    assert set(SOURCES) == asked | {"alertmanager"}
    assert [kind for kind, source in SOURCES.items() if source.get("isDefault")] == ["prometheus"]


@pytest.mark.parametrize(
    ("link", "leads_to"),
    [
        (FROM_EXEMPLARS[1], "tempo"),
        (FROM_LOGS[1], "tempo"),
        (TO_LOGS, "loki"),
        (TO_METRICS, "prometheus"),
    ],
)
def test_each_link_leads_to_a_source_of_its_kind(link: dict[str, Any], leads_to: str) -> None:
    assert link["datasourceUid"] == SOURCES[leads_to]["uid"]


def test_the_interval_is_that_at_which_prometheus_scrapes() -> None:
    assert OPTIONS["prometheus"]["timeInterval"] == tree("prometheus/prometheus.yml")["global"]["scrape_interval"]


def test_an_exemplar_is_labelled_as_its_link_expects() -> None:
    for link in FROM_EXEMPLARS:
        assert set(prometheus_exemplar((CALL.trace_id, 1.0, 1)).labels) == {link["name"]}


@pytest.mark.parametrize("link", [FROM_EXEMPLARS[0], FROM_LOGS[0]], ids=["exemplar", "log record"])
def test_a_trace_id_leads_to_the_dashboard_of_the_call(link: dict[str, Any]) -> None:
    """Without a data source the address is followed as it is; with one, it would be a query in Explore."""
    address = urlsplit(link["url"].replace("${__value.raw}", CALL.trace_id))
    [board] = [board for uid, board in BOARDS.items() if address.path == f"/d/{uid}"]
    [(name, value)] = parse_qsl(address.query)

    assert "datasourceUid" not in link
    assert (name, value) == ("var-trace_id", CALL.trace_id)
    assert name.removeprefix("var-") in variables(board)
    assert any("${trace_id}" in str(panel["targets"]) for panel in panels(board))


def index_labels() -> set[str]:
    """The labels of a stream in Loki: all else of a record is structured metadata."""
    config = tree("loki/config.yaml")["limits_config"]["otlp_config"]
    entries = [*config["resource_attributes"]["attributes_config"], *config["log_attributes"]]
    names = [name for entry in entries if entry["action"] == "index_label" for name in entry["attributes"]]
    return {name.replace(".", "_") for name in names}


def test_a_log_record_leads_to_its_trace() -> None:
    assert [link["url"] for link in FROM_LOGS if "datasourceUid" in link] == ["${__value.raw}"]
    for link in FROM_LOGS:
        assert (link["matcherType"], link["matcherRegex"]) == (
            "label",
            "trace_id",
        )  # Loki's name for the record's own id
    assert log_record(CALL, {}).trace_id == bytes.fromhex(CALL.trace_id)


def test_a_span_leads_to_its_log_records() -> None:
    sender = {item.key: item.value.string_value for item in resource(version="1", instance="one").attributes}
    tags = ", ".join(f'{tag["value"]}="{sender[tag["key"]]}"' for tag in TO_LOGS["tags"])

    query = TO_LOGS["query"].replace("${__tags}", tags).replace("${__trace.traceId}", CALL.trace_id)

    assert TO_LOGS["customQuery"] is True
    assert query == f'{{service_name="{signals.SCOPE}"}} | trace_id = "{CALL.trace_id}"'
    assert {tag["value"] for tag in TO_LOGS["tags"]} <= index_labels()


@pytest.mark.parametrize("query", TO_METRICS["queries"], ids=lambda query: str(query["name"]))
def test_a_span_leads_to_the_metrics_of_its_server(query: dict[str, str]) -> None:
    [metric] = selectors(parsed(query["query"].replace("$__tags", _tags())))

    assert metric.matchers == {"workspace": "engineering", "server": "github"}
    assert set(metric.matchers) <= set(SAMPLES[metric.metric].labels)


def _tags() -> str:
    """What Grafana puts for `$__tags`: labels with the values of the span's attributes."""
    [server, client, *_] = spans(CALL)
    for span in (server, client):
        found = {item.key: item.value.string_value for item in span.attributes}
        tags = [f'{tag["value"]}="{found[tag["key"]]}"' for tag in TO_METRICS["tags"]]
    return ",".join(tags)


def test_each_aggregation_of_the_links_is_by_labels_that_the_metric_has() -> None:
    for query in TO_METRICS["queries"]:
        [metric] = selectors(parsed(query["query"].replace("$__tags", "")))
        [labels] = re.findall(r"by \(([^)]*)\)", query["query"])
        assert set(labels.split(", ")) <= {*SAMPLES[metric.metric].labels, "le"}


def test_the_dashboards_are_read_from_where_they_are_mounted() -> None:
    [provider] = yaml.safe_load((FOLDER / "dashboards" / "callscope.yaml").read_text())["providers"]
    folder = GRAFANA.on_host(expanded(provider["options"]["path"]))

    assert folder is not None
    assert {path.stem for path in folder.glob("*.json")} == set(BOARDS)
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)


def test_home_is_the_overview() -> None:
    path = GRAFANA.on_host(GRAFANA.environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])

    assert path is not None
    assert json.loads(path.read_text())["uid"] == "callscope-overview"


def test_each_provisioned_file_is_mounted_where_grafana_looks_for_its_kind() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]

    assert {path.parent.name for path in files} == {"datasources", "dashboards"}
    for path in files:
        inside = f"/etc/grafana/provisioning/{path.relative_to(FOLDER)}"
        assert GRAFANA.on_host(inside) == path
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1
