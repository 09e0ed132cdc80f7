"""The Collector's own metrics, as alerts and dashboards read them: what waits, what is passed on, refused and lost."""

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from stack import build
from tests.backends import native
from tests.dashboards.series import OF_COLLECTOR, TARGET
from tests.observer.otlp_collector import Answer, Collector, collecting
from tests.stack.compose_file import ROOT
from tests.system.gateway_process import TLS, eventually

QUEUE: Final = 20
BATCH: Final = 10
AGAIN: Final = 1000
"""Answers that a back end has in store: more than are asked for."""
SMALL: Final = f"""
exporters:
  otlp_http/tempo:
    sending_queue: &queue {{queue_size: {QUEUE}, batch: {{flush_timeout: 100ms, min_size: 1, max_size: {BATCH}}}}}
    retry_on_failure: &retry {{initial_interval: 100ms, max_interval: 100ms}}
  otlp_http/loki: {{sending_queue: *queue, retry_on_failure: *retry}}
"""
"""Beside the container's configuration, so that a queue is full at once."""
EXPORTERS: Final = {"log_records": "otlp_http/loki", "spans": "otlp_http/tempo"}
"""By what it sends."""


_SAMPLE: Final = re.compile(r"^(\w+)\{(.+)\} (\S+)$", re.MULTILINE)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


class Sample(NamedTuple):
    """One that has labels; prometheus_client's own parser would call a counter `…_total` that is not."""

    name: str
    labels: dict[str, str]
    value: float


class Running:
    """A Collector with small queues; both signals go to `back_end`."""

    def __init__(self, folder: Path, back_end: Collector) -> None:
        (folder / "small.yaml").write_text(SMALL)
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            otlp, health, metrics = (sock.getsockname()[1] for sock in sockets)
        self._url, self._metrics = f"http://127.0.0.1:{otlp}/v1", f"http://127.0.0.1:{metrics}/metrics"
        environ = {
            "OTELCOL_HOST": "127.0.0.1",
            "OTELCOL_HTTP_PORT": str(otlp),
            "OTELCOL_HEALTH_PORT": str(health),
            "OTELCOL_METRICS_PORT": str(metrics),
            "OTELCOL_DATA": str(folder / "queue"),
            "TEMPO_OTLP_URL": back_end.url,
            "LOKI_OTLP_URL": back_end.url,
        }
        files = (ROOT / "otel-collector" / "config.yaml", folder / "small.yaml")
        command = [str(native(build.COLLECTOR, "otelcol")), *(f"--config={file}" for file in files)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=log, stderr=log)
        try:
            eventually(lambda: httpx.get(f"http://127.0.0.1:{health}/", verify=TLS).is_success)
        except BaseException:
            self.stop()
            raise

    def send(self) -> set[int]:
        """Export a batch of log records and one of spans; the statuses that it answers."""
        logs, traces = ExportLogsServiceRequest(), ExportTraceServiceRequest()
        records, spans = logs.resource_logs.add().scope_logs.add(), traces.resource_spans.add().scope_spans.add()
        for number in range(BATCH):
            records.log_records.add().body.string_value = str(number)
            spans.spans.add(name="n", trace_id=bytes(range(16)), span_id=bytes([*range(7), number]))
        return {
            httpx.post(
                f"{self._url}/{signal}",
                content=request.SerializeToString(),
                headers={"Content-Type": "application/x-protobuf"},
                verify=TLS,
            ).status_code
            for signal, request in (("logs", logs), ("traces", traces))
        }

    def samples(self) -> list[Sample]:
        """All that Prometheus would see."""
        text = httpx.get(self._metrics, headers={"Accept": "text/plain"}, verify=TLS).text
        return [
            Sample(name, dict(_LABEL.findall(labels)), float(value)) for name, labels, value in _SAMPLE.findall(text)
        ]

    def values(self, name: str, by: str) -> dict[str, float]:
        """A metric's values by one of its labels."""
        return {sample.labels[by]: sample.value for sample in self.samples() if sample.name == name}

    def stop(self) -> None:
        """As an engine does it."""
        self._process.terminate()
        self._process.wait(timeout=30)


@pytest.fixture
def back_end() -> Iterator[Collector]:
    """Takes what goes to Loki and to Tempo, or answers what a test says."""
    with collecting() as started:
        yield started


@pytest.fixture
def collector(tmp_path: Path, back_end: Collector) -> Iterator[Running]:
    started = Running(tmp_path, back_end)
    yield started
    started.stop()


def counted(collector: Running, what: str) -> dict[str, float]:
    """What both exporters have counted: `sent` or `send_failed`."""
    return {
        exporter: value
        for items in EXPORTERS
        for exporter, value in collector.values(f"otelcol_exporter_{what}_{items}", "exporter").items()
    }


def answers(back_end: Collector, status: int) -> None:
    """Let it answer this from now on."""
    for script in back_end.script.values():
        script[:] = [Answer(status)] * AGAIN


def test_what_waits_is_counted_against_the_queues_capacity_and_what_it_cannot_hold_is_refused(
    collector: Running, back_end: Collector
) -> None:
    answers(back_end, 503)
    eventually(lambda: collector.send() == {503})

    size, capacity = (collector.values(f"otelcol_exporter_queue_{what}", "exporter") for what in ("size", "capacity"))
    assert size == capacity == dict.fromkeys(EXPORTERS.values(), QUEUE)
    for items in EXPORTERS:
        assert collector.values(f"otelcol_receiver_refused_{items}", "receiver")["otlp"] >= BATCH
    assert not counted(collector, "send_failed")  # what is tried again is not lost

    for script in back_end.script.values():
        script.clear()
    eventually(lambda: counted(collector, "sent") == dict.fromkeys(EXPORTERS.values(), QUEUE))
    assert set(collector.values("otelcol_exporter_queue_size", "exporter").values()) == {0}


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_what_a_back_end_refuses_for_good_is_counted_and_was_not_before(
    collector: Running, back_end: Collector, status: int
) -> None:
    answers(back_end, status)
    assert not counted(collector, "send_failed")

    assert collector.send() == {200}

    eventually(lambda: counted(collector, "send_failed") == dict.fromkeys(EXPORTERS.values(), BATCH))


def test_the_series_have_the_names_and_labels_that_queries_ask_for(collector: Running, back_end: Collector) -> None:
    for script in back_end.script.values():
        script[:] = [Answer(400)]
    collector.send()

    def found() -> dict[str, set[str]]:
        return {
            sample.name: set(sample.labels) | TARGET for sample in collector.samples() if sample.name in OF_COLLECTOR
        }

    eventually(lambda: collector.send() == {200} and found() == OF_COLLECTOR)
