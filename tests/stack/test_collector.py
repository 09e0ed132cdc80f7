"""The Collector at work, with the configuration of its container: what it hides, and what it does not lose."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from gateway.observer import signals
from gateway.observer.attributes import add_attributes
from stack import build
from tests.backends import native
from tests.observer.otlp_collector import Collector, collecting
from tests.stack.compose_file import ROOT
from tests.system.gateway_process import TLS, eventually

CONFIGURATIONS: Final = (
    ROOT / "otel-collector" / "config.yaml",
    ROOT / "stack" / "native.yaml",
    ROOT / "stack" / "native-loki.yaml",
)
SECRET: Final = f"mwt_{'s' * 43}"
LEAKED: Final = {
    "note": f"sent with Bearer {SECRET}!",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJ3b3Jrc3BhY2VzIjpbIioiXX0.c2lnbmF0dXJlLW9mLWl0",
    "http.request.header.authorization": "Basic YWxpY2U6c2VjcmV0",
    "x-api-key": "key-of-a-client",
    "client_secret": "hidden-from-all",
}
"""What a record should not have in it, and could."""
KEPT: Final = {signals.MCP_TOKEN_ID: "alice", signals.MCP_CALL_ID: "c1", signals.GEN_AI_TOOL_NAME: "files__read_file"}


class Running:
    """A Collector whose log records go to `loki`, and its traces into a file."""

    def __init__(self, folder: Path, loki: str) -> None:
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            otlp, health, metrics = (sock.getsockname()[1] for sock in sockets)
        self.traces = folder / "traces.jsonl"
        self.url = f"http://127.0.0.1:{otlp}"
        environ = {
            "OTELCOL_HOST": "127.0.0.1",
            "OTELCOL_HTTP_PORT": str(otlp),
            "OTELCOL_HEALTH_PORT": str(health),
            "OTELCOL_METRICS_PORT": str(metrics),
            "OTELCOL_DATA": str(folder / "queue"),
            "OTELCOL_TRACES": str(self.traces),
            "OTELCOL_LOGS": str(folder / "logs.jsonl"),
            "LOKI_OTLP_URL": loki,
        }
        command = [str(native(build.COLLECTOR, "otelcol")), *(f"--config={file}" for file in CONFIGURATIONS)]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=log, stderr=log)
        try:
            eventually(lambda: httpx.get(f"http://127.0.0.1:{health}/", verify=TLS).is_success)
        except BaseException:
            self.stop()
            raise

    def send(self, signal: str, request: ExportLogsServiceRequest | ExportTraceServiceRequest) -> None:
        """Export to it, as the gateway does."""
        headers = {"Content-Type": "application/x-protobuf"}
        content = request.SerializeToString()
        answer = httpx.post(f"{self.url}/v1/{signal}", content=content, headers=headers, verify=TLS)
        assert answer.status_code == 200, answer.text

    def stop(self) -> None:
        """As an engine does it."""
        self._process.terminate()
        self._process.wait(timeout=30)


@contextlib.contextmanager
def running(folder: Path, loki: str) -> Iterator[Running]:
    started = Running(folder, loki)
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture
def loki() -> Iterator[Collector]:
    """Takes what the Collector sends to Loki."""
    with collecting() as started:
        yield started


def record(text: str, **attributes: str) -> ExportLogsServiceRequest:
    """An export of one log record."""
    request = ExportLogsServiceRequest()
    entry = request.resource_logs.add().scope_logs.add().log_records.add()
    entry.body.string_value = text
    add_attributes(attributes, entry)
    return request


def test_what_looks_like_a_secret_reaches_neither_logs_nor_traces(tmp_path: Path, loki: Collector) -> None:
    with running(tmp_path, loki.url) as collector:
        collector.send("logs", record(f"the token is {SECRET}", **LEAKED, **KEPT))
        request = ExportTraceServiceRequest()
        span = request.resource_spans.add().scope_spans.add().spans.add(name="n", kind=Span.SPAN_KIND_SERVER)
        span.trace_id, span.span_id = bytes(range(16)), bytes(range(8))
        add_attributes({**LEAKED, **KEPT}, span)
        collector.send("traces", request)
        [logged] = eventually(loki.records)
        traced = eventually(collector.traces.read_text)

    attributes = {item.key: item.value.string_value for item in logged.attributes}
    assert {name: attributes[name] for name in KEPT} == KEPT
    assert all(f'"{value}"' in traced for value in KEPT.values())
    for text in (traced, logged.body.string_value, *attributes.values()):
        assert not [value for value in (SECRET, *LEAKED.values()) if value in text]


def test_what_a_back_end_does_not_take_is_sent_when_it_is_back_though_the_collector_was_restarted(
    tmp_path: Path, loki: Collector
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen: connections are refused
        with running(tmp_path, "http://{}:{}".format(*nobody.getsockname())) as collector:
            for n in range(20):
                collector.send("logs", record(f"record {n}"))

    with running(tmp_path, loki.url):
        eventually(lambda: len(loki.records()) >= 20)

    assert sorted(entry.body.string_value for entry in loki.records()) == sorted(f"record {n}" for n in range(20))
