"""The telemetry plane put together: sinks, upkeep, and what is served over HTTP. Nothing here decides anything."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway import __version__
from gateway.analytics.auth import Authorizer
from gateway.analytics.routes import routes
from gateway.calls import ToolCall
from gateway.config import Config
from gateway.journal import Janitor, Reader
from gateway.ledger import Ledger, LedgerSink
from gateway.observer.health import Health
from gateway.observer.live import LiveStream
from gateway.observer.otlp import OtlpSink
from gateway.observer.reloading import Reloading
from gateway.observer.sinks import Pump
from gateway.observer.upkeep import Upkeep

DRAIN_S: Final = 5.0
"""Seconds that the sinks have at the end to take what is in the journal; the rest waits there for the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Everything that is open while the observer runs."""

    journal: Path
    ledger: Ledger
    otlp: OtlpSink | None
    pumps: tuple[Pump, ...]
    upkeep: Upkeep
    reloading: Reloading

    @classmethod
    def open(cls, config: Config, *, replica: str) -> Self:
        """Close what dead relays left open, then open every sink where it was.

        Raises:
            StartError: the ledger is another process's.
        """
        journal = config.data_dir / "journal"
        janitor = Janitor(journal, max_bytes=config.journal.max_bytes)
        janitor.recover()
        ledger = Ledger.open(config.data_dir / "ledger.duckdb")
        otlp = None
        if config.otlp is not None:
            position = config.data_dir / "otlp.position"
            otlp = OtlpSink(position, config.otlp, instance=replica, version=__version__)
        pumps = [Pump(LedgerSink(ledger), Reader(journal, ToolCall), interval=0.2)]
        if otlp is not None:
            pumps.append(Pump(otlp, Reader(journal, ToolCall), interval=0.5))
        return cls(
            journal=journal,
            ledger=ledger,
            otlp=otlp,
            pumps=tuple(pumps),
            upkeep=Upkeep(janitor, pumps),
            reloading=Reloading(config, [] if otlp is None else [otlp.configure]),
        )

    async def close(self) -> None:
        """Let the sinks drain, all at once, and close what is open."""
        async with asyncio.TaskGroup() as tasks:
            for pump in self.pumps:
                tasks.create_task(asyncio.to_thread(pump.stop, drain_seconds=DRAIN_S))
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
    plane = await asyncio.to_thread(Plane.open, config, replica=replica or socket.gethostname())
    try:
        for pump in plane.pumps:
            pump.start()
        async with _background(plane, stop, config_path):
            yield _app(plane, stop)
    finally:
        await plane.close()


@contextlib.asynccontextmanager
async def _background(plane: Plane, stop: asyncio.Event, config_path: Path | None) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(plane.upkeep.run(stop))]
        if config_path is not None:
            running.append(tasks.create_task(plane.reloading.follow(config_path)))
        try:
            yield
        finally:
            for task in running:
                task.cancel()


def _app(plane: Plane, stop: asyncio.Event) -> Starlette:
    current = plane.reloading.current
    live = LiveStream(plane.journal, Authorizer(current), stop=stop)
    return Starlette(
        routes=[
            *Health(plane.pumps, plane.ledger).routes(),
            *live.routes(),
            *routes(plane.ledger, current),
        ],
        exception_handlers={HTTPException: _http_error, Exception: _server_error},
    )


async def _http_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _server_error(_request: Request, _error: Exception) -> Response:
    """The traceback is in the log: Starlette raises the error again behind this answer."""
    return JSONResponse({"error": "the observer failed to answer; its log says why"}, 500)
