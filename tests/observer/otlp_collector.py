"""A small OTLP collector: real HTTP, real protobuf, and a script of how it answers."""

import contextlib
import gzip
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord


class Answer(NamedTuple):
    status: int = 200
    retry_after: str | None = None
    rejected: int = 0
    die: bool = False
    """Hang up without an answer."""


class Collector:
    """Takes exports; `script` has the next answers of a path, 200 follows."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer]] = {"/v1/traces": [], "/v1/logs": []}
        self.headers: list[dict[str, str]] = []
        self.traces: list[ExportTraceServiceRequest] = []
        """Acknowledged ones."""
        self.logs: list[ExportLogsServiceRequest] = []
        self.requests: Counter[str] = Counter()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.requests[self.path] += 1
                script = collector.script[self.path]
                answer = script.pop(0) if script else Answer()
                if answer.die:
                    self.close_connection = True
                    return
                content = b""
                if answer.status == 200:
                    content = collector.take(self.path, body, answer.rejected)
                self.send_response(answer.status)
                if answer.retry_after is not None:
                    self.send_header("retry-after", answer.retry_after)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, path: str, body: bytes, rejected: int) -> bytes:
        if path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(body))
            traces = ExportTraceServiceResponse()
            if rejected:
                traces.partial_success.rejected_spans = rejected
                traces.partial_success.error_message = "too old"
            return bytes(traces.SerializeToString())
        self.logs.append(ExportLogsServiceRequest.FromString(body))
        logs = ExportLogsServiceResponse()
        if rejected:
            logs.partial_success.rejected_log_records = rejected
        return bytes(logs.SerializeToString())

    def traced(self) -> list[str]:
        """Call ids of the acknowledged SERVER spans."""
        spans = [
            s for r in self.traces for group in r.resource_spans for scope in group.scope_spans for s in scope.spans
        ]
        return [_call_id(span) for span in spans if span.name == "tools/call github__create_issue"]

    def records(self) -> list[LogRecord]:
        """The acknowledged log records."""
        return [
            x for r in self.logs for group in r.resource_logs for scope in group.scope_logs for x in scope.log_records
        ]

    def logged(self) -> list[str]:
        """Their call ids."""
        return [_call_id(record) for record in self.records()]


def _call_id(item: Any) -> str:
    return next(str(a.value.string_value) for a in item.attributes if a.key == "mcp.call.id")


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that runs while the block does."""
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
        thread.join()
