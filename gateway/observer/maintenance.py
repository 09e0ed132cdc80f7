"""What the observer does besides its sinks: it keeps the journal's folder in order."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from gateway.journal import Janitor
from gateway.journal.reader import Positions
from gateway.observer.sinks import SinkWorker

logger = logging.getLogger(__name__)

COLLECT_EVERY: Final = 10
"""Of so many rounds, one deletes what every sink has read."""


class JournalMaintenance:
    """The journal's maintenance, and what it cost: calls that a sink lost because the journal grew over `max_bytes`."""

    def __init__(self, janitor: Janitor, workers: Sequence[SinkWorker]) -> None:
        self.dropped: Counter[str] = Counter()
        """Calls, by sink."""
        self._janitor = janitor
        self._workers = workers

    async def run(self, stop: asyncio.Event, *, interval: float = 1.0) -> None:
        """Close dead writers each `interval` seconds, and delete what has been read; a sink that died ends it all.

        A dead thread is not started again here: the process stops, and the supervisor starts a whole one.
        """
        rounds = 0
        while not stop.is_set():
            rounds += 1  # the first round deletes nothing: after a long pause, sinks must get to read before
            await asyncio.to_thread(self._round, collect=rounds % COLLECT_EVERY == 0)
            for worker in self._workers:
                if not worker.is_alive() and not stop.is_set():
                    logger.error("the %s sink has ended: the observer stops, to be started again", worker.sink.name)
                    stop.set()
            try:
                async with asyncio.timeout(interval):
                    await stop.wait()
            except TimeoutError:
                continue

    def _round(self, *, collect: bool) -> None:
        _guard(self._recover)
        if collect:
            _guard(self._collect)  # also when a full disk let no writer be closed: this makes room

    def _recover(self) -> None:
        closed = self._janitor.recover()
        if closed:
            logger.warning("a relay died: %d calls that it left open are closed as gateway_error", closed)

    def _collect(self) -> None:
        positions: dict[str, Positions] = {worker.sink.name: dict(worker.committed) for worker in self._workers}
        for sink, calls in self._janitor.collect(positions).items():
            self.dropped[sink] += calls
            logger.error("the journal is over journal.max_bytes: %d calls are lost to the %s sink", calls, sink)


def _guard(act: Callable[[], None]) -> None:
    """The outermost handler of a task that must go on: the next round tries again."""
    try:
        act()
    except OSError as error:
        logger.error("the journal cannot be kept in order: %s", error)  # noqa: TRY400 - the disk's reason is all
    except Exception:
        logger.exception("the journal cannot be kept in order")
