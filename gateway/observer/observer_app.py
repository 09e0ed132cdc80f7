"""The telemetry plane put together: sinks, maintenance, and what is served over HTTP."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.analytics.authorization import Authorizer
from gateway.analytics.routes import AnalyticsRoutes
from gateway.calls import Event, Heartbeat, Operation, ToolCall
from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.journal import Janitor, Reader, journal_id
from gateway.ledger import LedgerSink, open_ledger
from gateway.ledger.queries import Query
from gateway.observer import signals
from gateway.observer.config_reload import ConfigReloader
from gateway.observer.exposition import Labels, MetricsEndpoint
from gateway.observer.live_stream import LiveStream
from gateway.observer.maintenance import JournalMaintenance, RetentionTask
from gateway.observer.metrics import MetricsSink
from gateway.observer.otlp import OtlpSink
from gateway.observer.quota_snapshot_writer import QuotaSnapshotWriter
from gateway.observer.self_metrics import LoopLagProbe, SelfMetrics
from gateway.observer.sinks import Sink, SinkWorker
from gateway.observer.workspace_metrics import WorkspaceMetrics

logger = logging.getLogger(__name__)

DRAIN_S: Final = 5.0
"""Seconds that the sinks have at the end to process the journal; the rest waits there for the next start."""
READY_S: Final = 2.0
"""Seconds that `/readyz` waits for the ledger."""


class TelemetryPlane:
    """Everything that is open while the observer runs.

    Raises:
        StartError: another process has the ledger, or the ledger refuses.
    """

    def __init__(self, config: Config, *, replica: str) -> None:
        self._journal = config.data_dir / "journal"
        janitor = Janitor(self._journal, max_bytes=config.journal.max_bytes)
        janitor.recover()  # before any sink reads: it closes what dead relays left open
        self.ledger = open_ledger(config.ledger, config.data_dir)
        id_in_ledger = "" if config.ledger is None else journal_id(self._journal)
        self.metrics = MetricsSink(config.data_dir / "metrics.state", config.metrics)
        self.otlp: OtlpSink | None = None
        self.workers = [
            # A commit costs as much as a thousand rows; counting is quickest while a batch fits into a cache.
            self._worker(LedgerSink(self.ledger, journal_id=id_in_ledger), ToolCall, interval=0.5, max_bytes=2**22),
            self._worker(self.metrics, ToolCall, Operation, Heartbeat, interval=0.1, max_bytes=2**18),
        ]
        self._workspace_metrics = WorkspaceMetrics(self.ledger)
        self._retention = RetentionTask(self.ledger)
        self._quota_snapshots = QuotaSnapshotWriter(self.ledger, config.data_dir, journal_id=id_in_ledger)
        subscribers = [
            self._workspace_metrics.configure,
            self.metrics.configure,
            self._retention.configure,
            self._quota_snapshots.configure,
        ]
        if config.otlp is not None:
            position = config.data_dir / "otlp.position"
            self.otlp = OtlpSink(position, config.otlp, instance=replica, version=__version__)
            self.workers.append(self._worker(self.otlp, ToolCall, interval=0.5, max_bytes=2**20))
            subscribers.append(self.otlp.configure)
        self.maintenance = JournalMaintenance(janitor, self.workers)
        self._reloader = ConfigReloader(config, subscribers)
        self._loop_lag = LoopLagProbe()
        self.metrics.add_source(signals.RECORDS_DROPPED, self._lost_records)
        self.metrics.add_source(signals.LEDGER_ROWS_DELETED, self._retention.deleted)

    def app(self, stop: asyncio.Event) -> Starlette:
        """What is served over HTTP."""
        authorizer = Authorizer(self._reloader.current)
        catalog = self.metrics.relays.catalog
        analytics = AnalyticsRoutes(
            self.ledger, authorizer, catalog=catalog, upstream_up=self.metrics.relays.upstream_up
        )
        live = LiveStream(self._journal, authorizer, ledger=self.ledger, stop=stop, catalog=catalog)
        app = Starlette(
            routes=[
                Route("/healthz", _healthz),
                Route("/readyz", self._readyz),
                Route("/metrics", MetricsEndpoint(self.registry()).respond),
                *live.routes(),
                *analytics.routes(),
            ],
            exception_handlers={HTTPException: _http_error, Exception: _server_error},
        )
        app.router.redirect_slashes = False  # it would redirect to an address that the request's Host chooses
        return app

    def registry(self) -> CollectorRegistry:
        """What `/metrics` exposes."""
        registry = CollectorRegistry()
        registry.register(self.metrics)
        registry.register(self.metrics.relays)
        registry.register(self._workspace_metrics)
        registry.register(SelfMetrics(self.workers, self._reloader, self._loop_lags, version=__version__))
        ProcessCollector(registry=registry)
        return registry

    def background(self, stop: asyncio.Event, config_path: Path | None) -> list[Coroutine[Any, Any, None]]:
        """What runs beside the sinks' threads, until cancelled."""
        tasks = [self.maintenance.run(stop), self._loop_lag.run(), self._retention.run(), self._quota_snapshots.run()]
        return tasks if config_path is None else [*tasks, self._reloader.follow(config_path)]

    async def close(self) -> None:
        """Let the sinks drain, all at once, and close what is open."""
        async with asyncio.TaskGroup() as tasks:
            for worker in self.workers:
                tasks.create_task(asyncio.to_thread(worker.stop, drain_seconds=DRAIN_S))
        self.metrics.close()
        if self.otlp is not None:
            self.otlp.close()
        self.ledger.close()

    def _worker(self, sink: Sink, *events: type[Event], interval: float, max_bytes: int) -> SinkWorker:
        return SinkWorker(sink, Reader(self._journal, *events), interval=interval, max_bytes=max_bytes)

    def _lost_records(self) -> Mapping[Labels, int]:
        """Records that each sink has lost since this process began, by sink and reason."""
        lost: dict[Labels, int] = {}
        for worker in self.workers:
            name = worker.sink.name
            lost[name, "corrupt"] = worker.corrupt_lines
            lost[name, "max_bytes"] = self.maintenance.dropped[name]
        if self.otlp is not None:
            lost.update(((self.otlp.name, reason), records) for reason, records in self.otlp.dropped.items())
        return lost

    def _loop_lags(self) -> Mapping[str, float | None]:
        return {"relay": self.metrics.relays.worst_lag_s(), "observer": self._loop_lag.worst.seconds}

    async def _readyz(self, _request: Request) -> JSONResponse:
        """200 if every sink runs and the ledger responds, else 503 with what is missing.

        An unreachable collector makes nobody unready.
        """
        problems = [f"the {worker.sink.name} sink does not run" for worker in self.workers if not worker.is_alive()]
        problems += await asyncio.to_thread(self._ledger_problems)
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    def _ledger_problems(self) -> list[str]:
        try:
            with self.ledger.snapshot(seconds=READY_S) as snapshot:
                snapshot.rows(Query("select 1", {}))
        except LedgerUnavailableError as error:
            logger.warning("not ready: %s", error)  # the reason may name addresses, so only the log has it
            return ["the ledger is away"]
        return []


@contextlib.asynccontextmanager
async def build(
    config: Config, *, stop: asyncio.Event, config_path: Path | None = None, replica: str = ""
) -> AsyncIterator[Starlette]:
    """The running telemetry plane as an ASGI application; it drains and closes at the end of the block.

    `stop` ends the live streams, and is set if a sink dies. Changes of the file `config_path` hold at once.

    Raises:
        StartError: another process has the ledger, or the ledger refuses.
    """
    plane = await asyncio.to_thread(TelemetryPlane, config, replica=replica or socket.gethostname())
    try:
        for worker in plane.workers:
            worker.start()
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(each) for each in plane.background(stop, config_path)]
            try:
                yield plane.app(stop)
            finally:
                for task in running:
                    task.cancel()
    finally:
        await plane.close()


async def _healthz(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _server_error(_request: Request, _error: Exception) -> Response:
    """The traceback is in the log: Starlette raises the error again after this response."""
    return JSONResponse({"error": "the observer failed to respond; its log says why"}, 500)
