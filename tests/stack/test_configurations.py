"""The configurations of the Collector, Loki and Tempo, by the programs that read them, as far as there are any."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from gateway.config import PLANS
from gateway.observer import signals
from gateway.observer.log_records import retention
from stack import build
from tests.backends import loki, native
from tests.stack.addresses import tree
from tests.stack.compose_file import ROOT, scalars

COLLECTOR: Final = ROOT / "otel-collector" / "config.yaml"
NATIVE: Final = ROOT / "stack" / "native.yaml"
NATIVE_LOKI: Final = ROOT / "stack" / "native-loki.yaml"
LOKI: Final = ROOT / "loki" / "config.yaml"
HOURS_OF_A_DAY: Final = 24
TEN_YEARS_H: Final = 10 * 365 * HOURS_OF_A_DAY


def hours(text: str) -> int:
    """A duration in hours, which is how the configurations write long ones."""
    match = re.fullmatch(r"(\d+)h", text)
    assert match is not None, text
    return int(match[1])


# -- the Collector


def validated(*files: Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """What the Collector says about these files, one laid over the other."""
    command = [str(native(build.COLLECTOR, "otelcol")), "validate", *(f"--config={file}" for file in files)]
    full = {**os.environ, **(environ or {})}
    return subprocess.run(command, env=full, capture_output=True, text=True, check=False, timeout=60)


def test_the_collector_takes_its_configuration() -> None:
    done = validated(COLLECTOR)

    assert done.returncode == 0, done.stderr


def test_the_collector_takes_it_with_what_the_native_stack_lays_over_it(tmp_path: Path) -> None:
    environ = {"OTELCOL_TRACES": str(tmp_path / "traces.jsonl"), "OTELCOL_LOGS": str(tmp_path / "logs.jsonl")}

    for files in ((NATIVE,), (NATIVE, NATIVE_LOKI)):
        done = validated(COLLECTOR, *files, environ=environ)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("queue_size", "queue_sise"),
        ("blocked_values", "blocked_valuse"),
        ("processors: [memory_limiter", "processors: [x"),
    ],
)
def test_the_collector_refuses_a_mistake(tmp_path: Path, right: str, wrong: str) -> None:
    broken = tmp_path / "config.yaml"
    broken.write_text(COLLECTOR.read_text().replace(right, wrong))

    assert validated(broken).returncode != 0


def test_each_pipeline_limits_memory_first_and_redacts_before_it_exports_to_a_queue_on_disk() -> None:
    config = tree("otel-collector/config.yaml")

    assert set(config["service"]["pipelines"]) == {"traces", "logs"}
    for pipeline in config["service"]["pipelines"].values():
        assert pipeline["processors"] == ["memory_limiter", "redaction"]
        for exporter in pipeline["exporters"]:
            assert config["exporters"][exporter]["sending_queue"]["storage"] in config["service"]["extensions"]


# -- Loki


def verified(file: Path) -> subprocess.CompletedProcess[str]:
    """What Loki says about a file."""
    command = [str(loki()), f"-config.file={file}", "-config.expand-env=true", "-verify-config"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_loki_takes_its_configuration() -> None:
    done = verified(LOKI)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("period: 720h", "period: 12h"),
        ("store: tsdb", "store: x"),
        ("reject_old_samples_max_age", "reject_old_samples_maximum"),
        ("log_attributes", "record_attributes"),
        ("delete_request_store: filesystem", ""),
    ],
)
def test_loki_refuses_a_mistake(tmp_path: Path, right: str, wrong: str) -> None:
    broken = tmp_path / "config.yaml"
    broken.write_text(LOKI.read_text().replace(right, wrong))

    assert verified(broken).returncode != 0


def test_loki_can_ask_after_its_own_health() -> None:
    command = [str(loki()), "-health", "-health.url=http://127.0.0.1:1/ready"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert (done.returncode, "Health check failed" in done.stderr) == (1, True), done.stderr


def kept() -> dict[str, int]:
    """How long Loki keeps records, in hours, by their `mcp_retention`."""
    found = {}
    for line in tree("loki/config.yaml")["limits_config"]["retention_stream"]:
        match = re.fullmatch(r'\{mcp_retention="(\w+)"\}', line["selector"])
        assert match is not None, line
        found[match[1]] = hours(line["period"])
    return found


@pytest.mark.parametrize("plan", PLANS)
def test_loki_keeps_the_records_of_a_plan_as_long_as_the_plan_says(plan: str) -> None:
    days = PLANS[plan].retention_days
    hours_kept = kept()[retention(days)]

    assert hours_kept >= TEN_YEARS_H if days is None else hours_kept == days * HOURS_OF_A_DAY


def test_loki_has_no_retention_that_no_plan_has() -> None:
    assert set(kept()) == {retention(plan.retention_days) for plan in PLANS.values()}


def test_what_no_plan_says_is_kept_at_least_as_long_as_the_longest_plan_with_an_end() -> None:
    ends = [plan.retention_days for plan in PLANS.values() if plan.retention_days is not None]

    by_default = hours(tree("loki/config.yaml")["limits_config"]["retention_period"])

    assert by_default >= max(ends) * HOURS_OF_A_DAY


def test_the_streams_of_loki_have_these_labels_and_no_other() -> None:
    config = tree("loki/config.yaml")["limits_config"]["otlp_config"]
    of_records = [entry for entry in config["log_attributes"] if entry["action"] == "index_label"]
    of_senders = config["resource_attributes"]

    assert of_senders["ignore_defaults"] is True
    assert of_senders["attributes_config"] == [{"action": "index_label", "attributes": ["service.name"]}]
    assert [entry["attributes"] for entry in of_records] == [
        [signals.MCP_EVENT, signals.MCP_RETENTION, signals.MCP_WORKSPACE_ID]
    ]


# -- Tempo, of which there is no program here

TEMPO: Final = {
    "stream_over_http_enabled": "bool",
    "server.http_listen_port": "int",
    "server.log_level": "str",
    "distributor.receivers.otlp.protocols.http.endpoint": "str",
    "storage.trace.backend": "str",
    "storage.trace.local.path": "str",
    "storage.trace.wal.path": "str",
    "backend_worker.compaction.block_retention": "duration",
    "backend_scheduler.provider.compaction.compaction.block_retention": "duration",
    "query_frontend.metrics.max_duration": "duration",
    "usage_report.reporting_enabled": "bool",
}
"""Settings of Tempo 3.0: https://grafana.com/docs/tempo/v3.0.x/configuration/manifest/."""


def test_each_setting_of_tempo_is_one_that_it_documents() -> None:
    settings = {".".join(at): value for at, value in scalars(tree("tempo/config.yaml"))}

    assert set(settings) == set(TEMPO)
    for name, value in settings.items():
        match TEMPO[name]:
            case "bool":
                assert value in ("True", "False"), name
            case "int":
                assert value.isdigit(), name
            case "duration":
                assert re.fullmatch(r"(\d+[hms])+", value), f"{name}: Go knows hours, minutes and seconds"


def test_traces_are_kept_as_long_by_the_worker_as_by_the_scheduler() -> None:
    tempo = tree("tempo/config.yaml")
    scheduler = tempo["backend_scheduler"]["provider"]["compaction"]["compaction"]["block_retention"]

    assert tempo["backend_worker"]["compaction"]["block_retention"] == scheduler
