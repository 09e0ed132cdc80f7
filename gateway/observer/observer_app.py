"""The telemetry plane put together: sinks, maintenance, and what is served over HTTP. Nothing here decides anything."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.analytics.bearer import Authorizer
from gateway.analytics.routes import routes
from gateway.calls import Heartbeat, Operation, ToolCall
from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.journal import Janitor, Reader, journal_id
from gateway.ledger import Ledger, LedgerSink, open_ledger
from gateway.ledger.queries import Query
from gateway.observer import signals
from gateway.observer.config_reload import ConfigReloader
from gateway.observer.exposition import Labels, MetricsEndpoint
from gateway.observer.live import LiveStream
from gateway.observer.maintenance import JournalMaintenance, RetentionTask
from gateway.observer.metrics import MetricsSink
from gateway.observer.otlp import OtlpSink
from gateway.observer.quota_snapshot_writer import QuotaSnapshotWriter
from gateway.observer.self_metrics import LoopLagProbe, SelfMetrics, lost_records
from gateway.observer.sinks import SinkWorker
from gateway.observer.workspace_metrics import WorkspaceMetrics

logger = logging.getLogger(__name__)

DRAIN_S: Final = 5.0
"""Seconds that the sinks have at the end to take what is in the journal; the rest waits there for the next start."""
READY_S: Final = 2.0
"""Seconds that `/readyz` waits for the ledger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryPlane:
    """Everything that is open while the observer runs."""

    journal: Path
    ledger: Ledger
    metrics: MetricsSink
    workspace_metrics: WorkspaceMetrics
    otlp: OtlpSink | None
    workers: tuple[SinkWorker, ...]
    maintenance: JournalMaintenance
    retention: RetentionTask
    quota_snapshots: QuotaSnapshotWriter
    reloader: ConfigReloader
    probe: LoopLagProbe

    @classmethod
    def open(cls, config: Config, *, replica: str) -> Self:
        """Close what dead relays left open, then open every sink where it was.

        Raises:
            StartError: the ledger is another process's, or refuses.
        """
        journal = config.data_dir / "journal"
        janitor = Janitor(journal, max_bytes=config.journal.max_bytes)
        janitor.recover()
        ledger = open_ledger(config.ledger, config.data_dir)
        identity = journal_id(journal)
        shared = "" if config.ledger is None else identity
        workspace_metrics = WorkspaceMetrics(ledger)
        metrics = MetricsSink(config.data_dir / "metrics.state", config.metrics)
        workers = [
            # A commit costs as much as a thousand rows; what is only counted is quickest while it fits into a cache.
            SinkWorker(LedgerSink(ledger, journal_id=shared), Reader(journal, ToolCall), interval=0.5, max_bytes=2**22),
            SinkWorker(metrics, Reader(journal, ToolCall, Operation, Heartbeat), interval=0.1, max_bytes=2**18),
        ]
        retention = RetentionTask(ledger)
        quota_snapshots = QuotaSnapshotWriter(ledger, config.data_dir, journal_id=shared)
        subscribers = [workspace_metrics.configure, metrics.configure, retention.configure, quota_snapshots.configure]
        otlp = None
        if config.otlp is not None:
            position = config.data_dir / "otlp.position"
            otlp = OtlpSink(position, config.otlp, instance=replica, version=__version__)
            workers.append(SinkWorker(otlp, Reader(journal, ToolCall), interval=0.5))
            subscribers.append(otlp.configure)
        plane = cls(
            journal=journal,
            ledger=ledger,
            metrics=metrics,
            workspace_metrics=workspace_metrics,
            otlp=otlp,
            workers=tuple(workers),
            maintenance=JournalMaintenance(janitor, workers),
            retention=retention,
            quota_snapshots=quota_snapshots,
            reloader=ConfigReloader(config, subscribers),
            probe=LoopLagProbe(),
        )
        metrics.add_source(signals.RECORDS_DROPPED, plane.lost_records)
        metrics.add_source(signals.LEDGER_ROWS_DELETED, retention.deleted)
        return plane

    def lost_records(self) -> Mapping[Labels, int]:
        """Records that are lost since this process began, by sink and reason."""
        refused = {} if self.otlp is None else {self.otlp.name: self.otlp.dropped}
        return lost_records(self.workers, self.maintenance.dropped, refused)

    def loop_lags(self) -> Mapping[str, float | None]:
        """The event loops' lag in seconds, by kind of process."""
        return {"relay": self.metrics.relay_lag_s(), "observer": self.probe.worst.seconds}

    def registry(self) -> CollectorRegistry:
        """What `/metrics` exposes."""
        registry = CollectorRegistry()
        registry.register(self.metrics)
        registry.register(self.workspace_metrics)
        registry.register(SelfMetrics(self.workers, self.reloader, self.loop_lags, version=__version__))
        ProcessCollector(registry=registry)
        return registry

    async def close(self) -> None:
        """Let the sinks drain, all at once, and close what is open."""
        async with asyncio.TaskGroup() as tasks:
            for worker in self.workers:
                tasks.create_task(asyncio.to_thread(worker.stop, drain_seconds=DRAIN_S))
        self.metrics.close()
        if self.otlp is not None:
            self.otlp.close()
        self.ledger.close()


@contextlib.asynccontextmanager
async def build(
    config: Config, *, stop: asyncio.Event, config_path: Path | None = None, replica: str = ""
) -> AsyncIterator[Starlette]:
    """The running telemetry plane as an ASGI application; it drains and closes at the end of the block.

    `stop` ends the live streams, and is set if a sink dies. Changes of the file `config_path` hold at once.

    Raises:
        StartError: the ledger is another process's.
    """
    plane = await asyncio.to_thread(TelemetryPlane.open, config, replica=replica or socket.gethostname())
    try:
        for worker in plane.workers:
            worker.start()
        async with _background(plane, stop, config_path):
            yield _app(plane, stop)
    finally:
        await plane.close()


@contextlib.asynccontextmanager
async def _background(plane: TelemetryPlane, stop: asyncio.Event, config_path: Path | None) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        work = [plane.maintenance.run(stop), plane.probe.run(), plane.retention.run(), plane.quota_snapshots.run()]
        if config_path is not None:
            work.append(plane.reloader.follow(config_path))
        running = [tasks.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in running:
                task.cancel()


def _app(plane: TelemetryPlane, stop: asyncio.Event) -> Starlette:
    catalog = plane.metrics.catalog
    authorizer = Authorizer(plane.reloader.current)
    live = LiveStream(plane.journal, authorizer, ledger=plane.ledger, stop=stop, catalog=catalog)
    app = Starlette(
        routes=[
            Route("/healthz", _healthz),
            Route("/readyz", Readiness(plane.workers, plane.ledger).respond),
            Route("/metrics", MetricsEndpoint(plane.registry()).respond),
            *live.routes(),
            *routes(plane.ledger, authorizer, catalog=catalog, upstream_up=plane.metrics.upstream_up),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
    )
    app.router.redirect_slashes = False  # to an address that the request's Host would choose
    return app


class Readiness:
    """Ready means: every sink runs, and the ledger responds. An unreachable collector makes nobody unready."""

    def __init__(self, workers: Sequence[SinkWorker], ledger: Ledger) -> None:
        self._workers = workers
        self._ledger = ledger

    async def respond(self, _request: Request) -> JSONResponse:
        """200, or 503 with what is missing. Why the ledger is away may name addresses: only the log says it."""
        problems = [f"the {worker.sink.name} sink does not run" for worker in self._workers if not worker.is_alive()]
        problems += await asyncio.to_thread(self._ledger_problems)
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    def _ledger_problems(self) -> list[str]:
        try:
            with self._ledger.snapshot(seconds=READY_S) as snapshot:
                snapshot.rows(Query("select 1", {}))
        except LedgerUnavailableError as error:
            logger.warning("not ready: %s", error)
            return ["the ledger is away"]
        return []


async def _healthz(_request: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _server_error(_request: Request, _error: Exception) -> Response:
    """The traceback is in the log: Starlette raises the error again after this response."""
    return JSONResponse({"error": "the observer failed to respond; its log says why"}, 500)
