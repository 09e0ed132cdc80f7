"""The telemetry plane put together: sinks, maintenance, and what is served over HTTP. Nothing here decides anything."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import anyio
import anyio.to_thread
from prometheus_client import CollectorRegistry, ProcessCollector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway import __version__
from gateway.analytics.authorization import Authorizer
from gateway.analytics.routes import routes
from gateway.calls import Heartbeat, Operation, ToolCall
from gateway.config import Config
from gateway.journal import Janitor, Reader, journal_id
from gateway.ledger import Ledger, LedgerSink, open_ledger
from gateway.observer import signals
from gateway.observer.config_reload import ConfigReloader
from gateway.observer.exposition import exposition
from gateway.observer.health import Health
from gateway.observer.live import LiveStream
from gateway.observer.loop_lag import LoopProbe
from gateway.observer.maintenance import JournalMaintenance
from gateway.observer.metrics import MetricsSink
from gateway.observer.otlp import OtlpSink
from gateway.observer.quota_snapshot_writer import QuotaSnapshotWriter
from gateway.observer.retention_task import RetentionTask
from gateway.observer.self_metrics import internals_collector, losses
from gateway.observer.series import Labels
from gateway.observer.sinks import SinkWorker
from gateway.observer.usage_metrics import LedgerUsage

DRAIN_S: Final = 5.0
"""Seconds that the sinks have at the end to take what is in the journal; the rest waits there for the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryPlane:
    """Everything that is open while the observer runs."""

    journal: Path
    ledger: Ledger
    metrics: MetricsSink
    otlp: OtlpSink | None
    workers: tuple[SinkWorker, ...]
    maintenance: JournalMaintenance
    retention: RetentionTask
    quota_snapshots: QuotaSnapshotWriter
    reloader: ConfigReloader
    probe: LoopProbe

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
        usage = LedgerUsage(ledger)
        metrics = MetricsSink(config.data_dir / "metrics.state", config.metrics, usage=usage)
        workers = [
            # A commit costs as much as a thousand rows; what is only counted is quickest while it fits into a cache.
            SinkWorker(LedgerSink(ledger, journal_id=shared), Reader(journal, ToolCall), interval=0.5, max_bytes=2**22),
            SinkWorker(metrics, Reader(journal, ToolCall, Operation, Heartbeat), interval=0.1, max_bytes=2**18),
        ]
        retention = RetentionTask(ledger)
        quota_snapshots = QuotaSnapshotWriter(ledger, config.data_dir, journal_id=shared)
        subscribers = [usage.configure, metrics.configure, retention.configure, quota_snapshots.configure]
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
            otlp=otlp,
            workers=tuple(workers),
            maintenance=JournalMaintenance(janitor, workers),
            retention=retention,
            quota_snapshots=quota_snapshots,
            reloader=ConfigReloader(config, subscribers),
            probe=LoopProbe(),
        )
        metrics.count_also(signals.RECORDS_DROPPED, plane.losses)
        metrics.count_also(signals.LEDGER_ROWS_DELETED, retention.deleted)
        return plane

    def losses(self) -> Mapping[Labels, int]:
        """Records that are lost since this process began, by sink and reason."""
        refused = {} if self.otlp is None else {self.otlp.name: self.otlp.dropped}
        return losses(self.workers, self.maintenance.dropped, refused)

    def loop_lags(self) -> Mapping[str, float | None]:
        """The event loops' lag in seconds, by kind of process."""
        return {"relay": self.metrics.relay_lag_s(), "observer": self.probe.worst.seconds}

    def registry(self) -> CollectorRegistry:
        """What `/metrics` exposes."""
        registry = CollectorRegistry()
        registry.register(self.metrics.collector)
        registry.register(internals_collector(self.workers, self.reloader, self.loop_lags, version=__version__))
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
    current = plane.reloader.current
    catalog = plane.metrics.catalog
    live = LiveStream(plane.journal, Authorizer(current), ledger=plane.ledger, stop=stop, catalog=catalog)
    app = Starlette(
        routes=[
            *Health(plane.workers, plane.ledger).routes(),
            Route("/metrics", Scrape(plane.registry()).answer),
            *live.routes(),
            *routes(plane.ledger, current, catalog=catalog, upstream_up=plane.metrics.upstream_up),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
    )
    app.router.redirect_slashes = False  # to an address that the request's Host would choose
    return app


class Scrape:
    """Answers scrapes, one at a time, in a thread: rendering takes a while."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._one = anyio.CapacityLimiter(1)

    async def answer(self, request: Request) -> Response:
        """Every metric, in the format that the request accepts."""
        accept = request.headers.get("accept")
        body, content_type = await anyio.to_thread.run_sync(exposition, self._registry, accept, limiter=self._one)
        return Response(body, headers={"Content-Type": content_type})


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _server_error(_request: Request, _error: Exception) -> Response:
    """The traceback is in the log: Starlette raises the error again behind this answer."""
    return JSONResponse({"error": "the observer failed to answer; its log says why"}, 500)
