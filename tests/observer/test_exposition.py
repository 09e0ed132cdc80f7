"""What Prometheus reads."""

import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client import Metric as PrometheusMetric
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway import __version__
from gateway.calls import ErrorType
from gateway.config import Config, Metrics
from gateway.journal import Reader
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.observer import signals
from gateway.observer.config_reload import ConfigReloader
from gateway.observer.exposition import exposition
from gateway.observer.metrics import MetricsSink
from gateway.observer.self_metrics import SelfMetrics
from gateway.observer.sinks import SinkWorker
from gateway.observer.workspace_metrics import WorkspaceMetrics
from tests.observer.events import NOW, Clock, batch, beat, call, configuration, operation, sink_at

OPENMETRICS = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1"
PROMETHEUS_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2"
TEXT = "text/plain"


def parse_openmetrics(text: str) -> list[PrometheusMetric]:
    return list(parser.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]  # it has no types


def full_registry(folder: Path) -> CollectorRegistry:
    """Something of every metric."""
    clock = Clock()
    sink = sink_at(folder, clock)
    sink.configure(configuration())
    up = {"up": True, "last_success_ns": clock.ns, "tools": 1}
    sink.process(
        batch(
            call(),
            call(1, timestamp_ns=clock.ns + 10**9),
            call(2, duration_ms=7000.0, total_ms=7001.0),
            call(3, status="error", error_type=ErrorType.TOOL_ERROR),
            operation(),
            beat(clock, upstream=up, rejected={"unauthorized": 1}, usage_unknown={"engineering": {"allowed": 1}}),
        )
    )
    sink.add_source(signals.LEDGER_ROWS_DELETED, lambda: {("engineering",): 1})
    workspaces = WorkspaceMetrics(DuckLedger.open(Path(":memory:")))
    workspaces.configure(configuration(name='Alice "A\\B"\nCursor'))
    workers = [SinkWorker(sink, Reader(folder / "journal"), interval=1.0)]
    registry = CollectorRegistry()
    registry.register(sink)
    registry.register(sink.relays)
    registry.register(workspaces)
    registry.register(SelfMetrics(workers, ConfigReloader(Config(), []), lambda: {"relay": 0.0}, version=__version__))
    ProcessCollector(registry=registry)
    return registry


def test_every_metric_is_exposed_with_its_type_its_unit_and_its_labels(tmp_path: Path) -> None:
    body, _ = exposition(full_registry(tmp_path), OPENMETRICS)
    families = {family.name: family for family in parse_openmetrics(body.decode())}

    for metric in signals.METRICS:
        family = families[metric.family]
        assert (family.type, family.unit, family.documentation) == (metric.kind, metric.unit, metric.help)
        labels = {frozenset(sample.labels) - {"le"} for sample in family.samples}
        assert labels == {frozenset(metric.labels)}
    assert families.keys() == {metric.family for metric in signals.METRICS} | {
        name.removesuffix("_total") for name in signals.PROCESS_METRICS
    }


@pytest.mark.parametrize("accept", [OPENMETRICS, PROMETHEUS_3])
def test_openmetrics_is_written_if_it_is_asked_for(tmp_path: Path, accept: str) -> None:
    body, content_type = exposition(full_registry(tmp_path), accept)

    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert body.endswith(b"# EOF\n")
    names = [
        sample.labels["name"]
        for f in parse_openmetrics(body.decode())
        for sample in f.samples
        if "name" in sample.labels
    ]
    assert 'Alice "A\\B"\nCursor' in names


@pytest.mark.parametrize("accept", [TEXT, "", None, "*/*", "nonsense"])
def test_the_plain_text_format_is_written_otherwise(tmp_path: Path, accept: str | None) -> None:
    body, content_type = exposition(full_registry(tmp_path), accept)

    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    names = {sample.name for family in parse_text(body.decode()) for sample in family.samples}
    assert {"mcp_gateway_tool_calls_total", "mcp_gateway_tool_call_duration_seconds_bucket"} <= names


def test_each_bucket_of_a_calls_duration_has_the_newest_trace_in_openmetrics_only(tmp_path: Path) -> None:
    registry = full_registry(tmp_path)
    body, _ = exposition(registry, OPENMETRICS)
    found = [
        (sample.name, sample.labels["le"], sample.exemplar)
        for family in parse_openmetrics(body.decode())
        for sample in family.samples
        if sample.exemplar is not None
    ]

    name = "mcp_gateway_tool_call_duration_seconds_bucket"
    of = {"mcp_gateway_tool_call_duration_seconds_bucket", "mcp_gateway_phase_duration_seconds_bucket"}
    assert {sample for sample, *_ in found} == of | {"mcp_gateway_overhead_seconds_bucket"}
    found = [one for one in found if one[0] == name]
    assert [le for _, le, _ in found] == ["0.05", "10.0"]
    assert [exemplar.labels for _, _, exemplar in found] == [{"trace_id": f"{2:032x}"}, {"trace_id": f"{3:032x}"}]
    assert [exemplar.value for _, _, exemplar in found] == [0.03, 7.0]
    ended = [float(exemplar.timestamp or 0) - NOW for _, _, exemplar in found]
    assert ended == pytest.approx([1.031, 7.001], abs=1e-3)
    plain, _ = exposition(registry, TEXT)
    assert b"trace_id" in body
    assert b"trace_id" not in plain


def test_a_new_histogram_has_no_exemplar(tmp_path: Path) -> None:
    sink = MetricsSink(tmp_path / "metrics.state", Metrics(), clock=Clock())
    sink.process(batch(call()))
    registry = CollectorRegistry()
    registry.register(sink)

    body, _ = exposition(registry, OPENMETRICS)

    assert b"mcp_gateway_tool_call_duration_seconds_bucket" in body
    assert b"trace_id" not in body


@pytest.mark.parametrize("accept", [OPENMETRICS, TEXT])
def test_there_is_no_series_of_when_a_series_was_created(tmp_path: Path, accept: str) -> None:
    body, _ = exposition(full_registry(tmp_path), accept)

    assert b"_created" not in body


@pytest.mark.parametrize("accept", [OPENMETRICS, TEXT])
def test_a_metric_without_a_series_is_left_out(tmp_path: Path, accept: str) -> None:
    registry = CollectorRegistry()
    registry.register(sink_at(tmp_path, Clock()))

    body, _ = exposition(registry, accept)

    assert b"mcp_gateway_series_overflow" in body
    assert b"# TYPE mcp_gateway_tool_calls" not in body


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not on the PATH: make test-tools installs it")
def test_promtool_has_nothing_to_say(tmp_path: Path) -> None:
    body, _ = exposition(full_registry(tmp_path), TEXT)

    checked = subprocess.run([str(PROMTOOL), "check", "metrics"], input=body, capture_output=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
