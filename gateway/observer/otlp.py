"""The OTLP sink: spans and log records to a collector, by OTLP/HTTP with protobuf bodies.

A position is written only after the collector has acknowledged the spans and the log records of every call before it.
So a call is exported at least once, whatever dies. Ids and times follow from the record, so that a back end recognizes
a repetition. An export that failed for now is tried again, one that is refused for good is dropped and counted
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
from gateway.errors import CallscopeError, StartError
from gateway.journal import Batch
from gateway.journal.reader import Positions
from gateway.observer.attributes import resource, scope
from gateway.observer.log_records import log_record, retentions
from gateway.observer.sinks import StateFile
from gateway.observer.spans import spans

logger = logging.getLogger(__name__)

RETRYABLE: Final = frozenset({429, 502, 503, 504})
TOO_LARGE: Final = 413
MAX_CALLS: Final = 512
"""Of one export: about 1 MB of protobuf before gzip."""
MAX_RETRY_AFTER_S: Final = 60.0
"""The longest pause, even if the collector asks for a longer one."""
IDLE_SAVE_S: Final = 10.0
"""Positions that moved without a call, because of heartbeats, are saved this seldom."""
REASONS: Final = ("rejected", "refused", "too_large")
"""Why data is lost: the collector took the rest of the export, or none of it, or one call is more than it takes."""


class CollectorUnavailableError(CallscopeError):
    """The collector does not take data now. It may take the same data later."""


class _TooLargeError(CallscopeError):
    """The request is larger than the collector takes."""


class _Signal(NamedTuple):
    """Spans or log records: the path that they are posted to, and their name in the log."""

    path: str
    noun: str


_SPANS: Final = _Signal("/v1/traces", "spans")
_LOGS: Final = _Signal("/v1/logs", "log records")


class OtlpSink:
    """Exports each call's spans and log record. For one thread, except `committed` and `dropped`."""

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
        self.dropped = Counter(dict.fromkeys(REASONS, 0))
        """Spans and log records that are lost, by reason."""
        self._file = StateFile(position_path, "the collector's position")
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
        self._committed = _load(position_path)
        self._acknowledged = self._committed
        self._traced = self._committed
        """The positions behind the last call whose spans the collector has acknowledged."""
        self._saved_at = 0.0
        self._max_calls = MAX_CALLS
        self._not_before = 0.0
        self._retentions: Mapping[str, str] = {}

    @property
    def committed(self) -> Mapping[str, int]:
        """The positions, as they are saved, behind the last call that the collector has acknowledged."""
        return self._committed

    def configure(self, config: Config) -> None:
        self._retentions = retentions(config)

    def process(self, batch: Batch) -> None:
        """Export the calls, in portions. A portion that was acknowledged is not sent again when a later one fails.

        Raises:
            CollectorUnavailableError: it cannot be reached, or the pause that it asked for is not over.
        """
        left = self._not_before - self._clock()
        if left > 0:
            raise CollectorUnavailableError(f"{self._base} asked for a pause, of which {left:.0f} s are left")
        exported = False
        while entries := list(islice(self._unacknowledged(batch), self._max_calls)):
            if self._send(entries):
                self._save(self._acknowledged)
                exported = True
        self._acknowledged = self._traced = batch.positions
        idle = self._clock() - self._saved_at
        if batch.positions != self._committed and (exported or idle >= IDLE_SAVE_S):
            self._save(batch.positions)

    def close(self) -> None:
        self._client.close()

    def _unacknowledged(self, batch: Batch) -> Iterator[tuple[ToolCall, str, int]]:
        """The batch's calls that are still to be exported, with their writers and offsets."""
        for event, writer, offset in batch.entries:
            if isinstance(event, ToolCall) and offset > self._acknowledged.get(writer, 0):
                yield event, writer, offset

    def _send(self, entries: Sequence[tuple[ToolCall, str, int]]) -> bool:
        """Export the calls' log records, and their spans if that is still to be done. False: they were too many.

        After that the next export has half as many calls. After a success it has twice as many again.
        """
        ends = {writer: offset for _, writer, offset in entries}
        try:
            untraced = [call for call, writer, offset in entries if offset > self._traced.get(writer, 0)]
            if untraced:
                self._export_spans(untraced)
                self._traced = {**self._traced, **ends}
            self._export_logs([call for call, _, _ in entries])
        except _TooLargeError:
            self._max_calls = len(entries) // 2
            return False
        self._acknowledged = {**self._acknowledged, **ends}
        self._max_calls = min(self._max_calls * 2, MAX_CALLS)
        return True

    def _export_spans(self, calls: Sequence[ToolCall]) -> None:
        scoped = ScopeSpans(scope=self._scope, spans=[span for call in calls for span in spans(call)])
        request = ExportTraceServiceRequest(
            resource_spans=[ResourceSpans(resource=self._resource, scope_spans=[scoped])],
        )
        answer = ExportTraceServiceResponse()
        self._export(_SPANS, request, answer, calls=len(calls), records=len(scoped.spans))
        partial = answer.partial_success
        self._partly_rejected(_SPANS, partial.rejected_spans, partial.error_message)

    def _export_logs(self, calls: Sequence[ToolCall]) -> None:
        records = [log_record(call, self._retentions) for call in calls]
        scoped = ScopeLogs(scope=self._scope, log_records=records)
        request = ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=self._resource, scope_logs=[scoped])])
        answer = ExportLogsServiceResponse()
        self._export(_LOGS, request, answer, calls=len(calls), records=len(records))
        partial = answer.partial_success
        self._partly_rejected(_LOGS, partial.rejected_log_records, partial.error_message)

    def _export(self, signal: _Signal, request: Message, answer: Message, *, calls: int, records: int) -> None:
        """Post the request and read the response into `answer`. What is refused for good is counted.

        Raises:
            CollectorUnavailableError: the same may succeed later.
            _TooLargeError: fewer calls may succeed.
        """
        url = self._base + signal.path
        response = self._post(url, gzip.compress(request.SerializeToString(), 1))
        if response.status_code == TOO_LARGE and calls > 1:
            raise _TooLargeError(f"{url} does not take an export of {calls} calls")
        if not response.is_success:
            self.dropped["too_large" if response.status_code == TOO_LARGE else "refused"] += records
            logger.error("%s refuses %d %s: %s", url, records, signal.noun, _summary(response))
            return
        try:
            answer.ParseFromString(response.content)
        except DecodeError:
            logger.warning("%s responds %d, but not with OTLP; the export counts as taken", url, response.status_code)

    def _post(self, url: str, body: bytes) -> httpx.Response:
        try:
            response = self._client.post(url, content=body)
        except httpx.TransportError as error:
            raise CollectorUnavailableError(f"{url} does not respond: {error!r}; check otlp.endpoint") from error
        if response.status_code in RETRYABLE:
            now = self._clock()
            self._not_before = now + min(_retry_after(response.headers.get("retry-after"), now), MAX_RETRY_AFTER_S)
            raise CollectorUnavailableError(f"{url} responds {_summary(response)}")
        return response

    def _partly_rejected(self, signal: _Signal, count: int, message: str) -> None:
        self.dropped["rejected"] += count
        if count or message:
            logger.warning("the collector rejected %d %s: %.200s", count, signal.noun, message)

    def _save(self, positions: Positions) -> None:
        """Write the positions. If that fails, this process sends nothing again for it; the next one does."""
        self._saved_at = self._clock()
        if self._file.write(msgspec.json.encode(positions), sync=False):
            self._committed = positions


def _summary(response: httpx.Response) -> str:
    return f"{response.status_code} {response.text[:200]}".rstrip()


def _load(path: Path) -> Positions:
    """The saved positions. Without a file, or with one that does not hold any, the whole journal is exported again.

    Raises:
        StartError: the file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Positions)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StartError(
            f"{path}: the collector's position cannot be read: {error.strerror}; repair or move the file"
        ) from error
    except msgspec.MsgspecError as error:
        logger.warning("%s does not hold positions (%s): the whole journal is exported again", path, error)
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
