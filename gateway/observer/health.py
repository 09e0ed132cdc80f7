"""Whether the observer lives, and whether it is of use: `/healthz` and `/readyz`."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger
from gateway.ledger.queries import Query
from gateway.observer.sinks import SinkWorker

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 2.0
"""Seconds for an answer that takes the ledger a moment."""


class Health:
    """Ready means: every sink runs, and the ledger answers. A collector that is away makes nobody unready."""

    def __init__(self, workers: Sequence[SinkWorker], ledger: Ledger) -> None:
        self._workers = workers
        self._ledger = ledger

    def routes(self) -> list[Route]:
        """Where it can be asked."""
        return [Route("/healthz", self.live), Route("/readyz", self.ready)]

    async def live(self, _request: Request) -> JSONResponse:
        """200 from whoever can answer."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> JSONResponse:
        """200, or 503 with what is missing. Why the ledger is away may have addresses in it, and is for the log."""
        problems = [f"the {worker.sink.name} sink does not run" for worker in self._workers if not worker.is_alive()]
        problems += await asyncio.to_thread(self._ask_ledger)
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    def _ask_ledger(self) -> list[str]:
        try:
            with self._ledger.snapshot(seconds=PATIENCE_S) as snapshot:
                snapshot.rows(Query("select 1", {}))
        except LedgerUnavailableError as error:
            logger.warning("not ready: %s", error)
            return ["the ledger is away"]
        return []
