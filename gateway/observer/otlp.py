"""The OTLP sink: spans and log records to a collector, by OTLP/HTTP with protobuf bodies.

A position is written only after the collector has acknowledged the spans and the log records of every call before it,
so that a call is exported at least once, whatever dies; ids and times follow from the record, so that a back end can
tell a repetition. What the collector may take later is tried again, what it refuses for good is dropped and counted
(https://opentelemetry.io/docs/specs/otlp/#otlphttp-response).
"""

import gzip
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import msgspec
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]  # protobuf ships no types
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs, ScopeLogs
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans

from gateway.calls import ToolCall
from gateway.config import Config, Otlp
from gateway.errors import CallscopeError
from gateway.journal import Batch
from gateway.journal.reader import Positions
from gateway.observer.attributes import resource, scope
from gateway.observer.logs import log_record, retentions
from gateway.observer.traces import spans

logger = logging.getLogger(__name__)

RETRYABLE: Final = frozenset({429, 502, 503, 504})
MAX_CALLS: Final = 512
"""Of one export: about 1 MB of protobuf before gzip."""
MAX_RETRY_AFTER_S: Final = 60.0
"""A collector that asks for more is asked again after this."""
IDLE_SAVE_S: Final = 10.0
"""Positions move without a call too (heartbeats); then they are saved this seldom."""


class CollectorAwayError(CallscopeError):
    """The collector does not take data now; the same data may be taken later."""


class _Export(NamedTuple):
    """One request's worth: the calls, and the positions behind them."""

    calls: list[ToolCall]
    positions: Positions


class OtlpSink:
    """Exports each call's spans and log record; see the module. For one thread, but for `durable` and `dropped`."""

    name = "otlp"

    def __init__(
        self,
        position_path: Path,
        endpoint: Otlp,
        *,
        instance: str,
        version: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        """Spans and log records that are lost, by reason."""
        self._path = position_path
        self._base = endpoint.endpoint.rstrip("/")
        self._client = httpx.Client(
            timeout=endpoint.timeout,
            headers={
                **endpoint.headers,
                "content-type": "application/x-protobuf",
                "content-encoding": "gzip",
                "user-agent": f"callscope/{version}",
            },
        )
        self._resource = resource(version=version, instance=instance)
        self._scope = scope(version)
        self._clock = clock
        self._durable = _load(position_path)
        self._saved_at = 0.0
        self._spans_acknowledged = False
        self._not_before = 0.0
        self._retentions: Mapping[str, str] = {}

    @property
    def durable(self) -> Mapping[str, int]:
        """The positions behind the last call that the collector has acknowledged."""
        return self._durable

    def configure(self, config: Config) -> None:
        """Take over the retention of each workspace."""
        self._retentions = retentions(config)

    def absorb(self, batch: Batch) -> None:
        """Export the calls, in portions; an acknowledged portion is not sent again when a later one fails.

        Raises:
            CollectorAwayError: it asks to be spared for a while, or cannot be reached.
        """
        left = self._not_before - self._clock()
        if left > 0:
            raise CollectorAwayError(f"{self._base} asked to be left alone for another {left:.0f} s")
        exported = False
        for export in self._exports(batch):
            self._send(export.calls)
            self._save(export.positions)
            exported = True
        idle = self._clock() - self._saved_at
        if batch.positions != self._durable and (exported or idle >= IDLE_SAVE_S):
            self._save(batch.positions)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _exports(self, batch: Batch) -> Iterator[_Export]:
        """What of the batch has not been acknowledged yet, in portions."""
        entries = ((e.event, e.writer, e.offset) for e in batch.entries if e.offset > self._durable.get(e.writer, 0))
        calls = ((event, writer, offset) for event, writer, offset in entries if isinstance(event, ToolCall))
        while portion := list(islice(calls, MAX_CALLS)):
            ends = {writer: offset for _, writer, offset in portion}
            yield _Export([call for call, _, _ in portion], {**self._durable, **ends})

    def _send(self, calls: Sequence[ToolCall]) -> None:
        if not self._spans_acknowledged:
            self._export_spans(calls)
        self._spans_acknowledged = True
        self._export_logs(calls)
        self._spans_acknowledged = False

    def _export_spans(self, calls: Sequence[ToolCall]) -> None:
        scoped = ScopeSpans(scope=self._scope, spans=[span for call in calls for span in spans(call)])
        request = ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scoped])],
        )
        answer = ExportTraceServiceResponse()
        if not self._post("/v1/traces", request, answer):
            self.dropped["rejected"] += len(scoped.spans)
        elif answer.HasField("partial_success"):
            partial = answer.partial_success
            self._partly_rejected("spans", partial.rejected_spans, partial.error_message)

    def _export_logs(self, calls: Sequence[ToolCall]) -> None:
        records = [log_record(call, self._retentions) for call in calls]
        scoped = ScopeLogs(scope=self._scope, log_records=records)
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=self._resource, scope_logs=[scoped])])
        answer = ExportLogsServiceResponse()
        if not self._post("/v1/logs", request, answer):
            self.dropped["rejected"] += len(records)
        elif answer.HasField("partial_success"):
            partial = answer.partial_success
            self._partly_rejected("log records", partial.rejected_log_records, partial.error_message)

    def _post(self, path: str, request: Message, answer: Message) -> bool:
        """Whether the collector took the request, and its `answer`; False if it refuses it for good."""
        url = self._base + path
        try:
            response = self._client.post(url, content=gzip.compress(request.SerializeToString(), 1))
        except httpx.TransportError as error:
            raise CollectorAwayError(f"{url} does not answer: {error!r}") from error
        if response.status_code in RETRYABLE:
            now = self._clock()
            self._not_before = now + min(_retry_after(response.headers.get("retry-after"), now), MAX_RETRY_AFTER_S)
            raise CollectorAwayError(f"{url} answers {response.status_code}")
        if not response.is_success:
            logger.error("%s refuses an export with %d: %.200s", url, response.status_code, response.text)
            return False
        try:
            answer.ParseFromString(response.content)
        except DecodeError:
            logger.warning("%s answers %d with what is no OTLP; it counts as taken", url, response.status_code)
        return True

    def _partly_rejected(self, what: str, count: int, message: str) -> None:
        if count:
            self.dropped["rejected"] += count
        if count or message:
            logger.warning("the collector rejected %d %s: %.200s", count, what, message)

    def _save(self, positions: Positions) -> None:
        draft = self._path.with_suffix(".draft")
        draft.write_bytes(msgspec.json.encode(positions))
        draft.replace(self._path)
        self._durable = positions
        self._saved_at = self._clock()


def _load(path: Path) -> Positions:
    """Nowhere, if there is no file or it does not hold positions: then everything that is left is exported again."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Positions)
    except FileNotFoundError:
        return {}
    except msgspec.MsgspecError as error:
        logger.warning("%s holds no positions (%s): the whole journal is exported again", path, error)
        return {}


def _retry_after(value: str | None, now: float) -> float:
    """Seconds, from `Retry-After` in either form; 0 if there is none."""
    if value is None:
        return 0.0
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(value).timestamp() - now, 0.0)
    except ValueError:
        return 0.0
