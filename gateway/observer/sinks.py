"""Sinks: what becomes of the journal. Each reads on its own, at its own speed, from its own durable position."""

import logging
import threading
import time
from collections.abc import Mapping
from typing import Final, Protocol

from gateway.errors import CallscopeError
from gateway.journal import Batch, Reader
from gateway.journal.reader import Positions

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S: Final = 0.2
MAX_BACKOFF_S: Final = 10.0
MAX_DOUBLINGS: Final = 8
"""More make no longer pause, and in the end no float."""


class Sink(Protocol):
    """Takes batches, in order, each exactly once as far as `committed` says.

    A sink that raises gets a batch that begins with the same entries again, later: what it has kept, it must know.
    """

    name: str

    @property
    def committed(self) -> Mapping[str, int]:
        """The positions up to which nothing can be lost by `kill -9`: where reading begins after a start.

        Raises:
            CallscopeError: where they are kept is away.
        """

    def process(self, batch: Batch) -> None:
        """Take the batch; called from the sink's own thread, also with an empty batch each time nothing was new."""


class SinkWorker(threading.Thread):
    """Moves batches from the journal into one sink until it is stopped; no failure of the sink ends it."""

    def __init__(self, sink: Sink, reader: Reader, *, interval: float, max_bytes: int = 2**20) -> None:
        super().__init__(name=f"worker-{sink.name}", daemon=True)
        self.sink = sink
        self.failures = 0
        """Batches that could not be read, or that the sink refused; each was tried again."""
        self.failures_in_a_row = 0
        self.corrupt_lines = 0
        self.lag_bytes = 0
        """What stands in the journal and the sink has not taken."""
        self._reader = reader
        self._interval = interval
        self._max_bytes = max_bytes
        self.committed: Mapping[str, int] = {}
        """What the sink's said when it was asked last; asking may wait, and this does not."""
        self._positions: Positions | None = None
        self._caught_up = time.monotonic()
        self._stopping = threading.Event()
        self._draining = threading.Event()

    @property
    def lag_seconds(self) -> float:
        """How long ago the sink had taken everything that was there; 0 if it has it now."""
        return 0.0 if self.lag_bytes == 0 and self.failures_in_a_row == 0 else time.monotonic() - self._caught_up

    def run(self) -> None:
        """Read, absorb, repeat; after a failure, from the same position again with a growing pause."""
        while not self._stopping.is_set():
            draining = self._draining.is_set()  # before the read: what is written until then is still to be taken
            batch = self._move()
            if batch is not None and batch.lag_bytes == 0:
                self._caught_up = time.monotonic()
                if draining and not batch.entries:
                    return
                self._stopping.wait(self._interval)

    def stop(self, *, drain_seconds: float) -> None:
        """Let the sink take what is there, for at most `drain_seconds`; what it has not taken waits in the journal."""
        self._draining.set()
        self.join(drain_seconds)
        self._stopping.set()
        self.join(MAX_BACKOFF_S)

    def _move(self) -> Batch | None:
        """Read a batch and let the sink take it; None if either failed, and the pause after that is over."""
        try:
            if self._positions is None:
                self._positions = dict(self.sink.committed)
            batch = self._reader.read(self._positions, self._max_bytes)
            self.lag_bytes = batch.lag_bytes + batch.size
            self.sink.process(batch)
            self.committed = dict(self.sink.committed)
        except (CallscopeError, OSError) as error:
            pause = self._failed()
            logger.warning("the %s sink waits %.1f s and tries again: %s", self.sink.name, pause, error)
        except Exception:
            pause = self._failed()
            logger.exception("the %s sink refused a batch; the same again in %.1f s", self.sink.name, pause)
        else:
            self.failures_in_a_row = 0
            self.lag_bytes = batch.lag_bytes
            self.corrupt_lines += batch.corrupt
            self._positions = batch.positions
            return batch
        self._stopping.wait(pause)
        return None

    def _failed(self) -> float:
        """Count a failure; the seconds until the next attempt."""
        self.failures += 1
        self.failures_in_a_row += 1
        return min(FIRST_BACKOFF_S * 2.0 ** min(self.failures_in_a_row - 1, MAX_DOUBLINGS), MAX_BACKOFF_S)
