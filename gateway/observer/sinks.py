"""Sinks: each reads the journal in a thread of its own, at its own speed, from its own committed position."""

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

from gateway.atomic_file import remove_drafts, replacing
from gateway.backoff import Backoff
from gateway.errors import CallscopeError
from gateway.journal import Batch, Reader
from gateway.journal.reader import Positions

logger = logging.getLogger(__name__)

LAST_BATCH_S: Final = 10.0
"""Seconds that the end waits for a sink that is in the middle of a batch when the time to drain is over."""


class Sink(Protocol):
    """Takes batches, in order, each exactly once as far as `committed` says.

    After an exception the sink gets a batch that begins with the same entries again: it must know what it has kept.
    """

    name: str

    @property
    def committed(self) -> Mapping[str, int]:
        """The positions up to which `kill -9` loses nothing: where reading begins after a start.

        Raises:
            CallscopeError: the place where they are stored cannot be reached.
        """

    def process(self, batch: Batch) -> None:
        """Take the batch. Called from the sink's own thread, with an empty batch each time when nothing is new."""


class StateFile:
    """The file in which a sink commits its positions. If the disk refuses it, that is logged once."""

    def __init__(self, path: Path, content: str) -> None:
        self._path = path
        self._content = content
        """What the file holds, for the log."""
        self._failing = False
        with contextlib.suppress(OSError):  # what is wrong with the folder, the first write will show
            remove_drafts(path)

    def write(self, data: bytes, *, sync: bool) -> bool:
        """Replace the file as a whole. False: it is as it was."""
        try:
            with replacing(self._path, sync=sync) as file:
                file.write(data)
        except OSError as error:
            if not self._failing:
                logger.error(  # noqa: TRY400 - the disk's reason is all
                    "%s: %s cannot be saved: %s; the journal is kept until it can", self._path, self._content, error
                )
            self._failing = True
        else:
            self._failing = False
        return not self._failing


class SinkWorker(threading.Thread):
    """Moves batches from the journal into one sink until it is stopped; no failure of the sink ends it."""

    def __init__(
        self,
        sink: Sink,
        reader: Reader,
        *,
        interval: float,
        max_bytes: int = 2**20,
        backoff: Backoff | None = None,
    ) -> None:
        super().__init__(name=f"sink-{sink.name}", daemon=True)
        self.sink = sink
        self.failures = 0
        """Batches that could not be read, or that the sink refused; each was tried again."""
        self.failing = False
        self.corrupt_lines = 0
        self.lag_bytes = 0
        """What is in the journal and not in the sink."""
        self.committed: Mapping[str, int] = {}
        """The sink's, as of its last batch: asking the sink itself may wait for a database."""
        self._reader = reader
        self._interval = interval
        self._max_bytes = max_bytes
        self._backoff = backoff or Backoff(0.2, 10.0)
        self._positions: Positions | None = None
        self._caught_up = time.monotonic()
        self._stopping = threading.Event()
        self._draining = threading.Event()

    @property
    def lag_seconds(self) -> float:
        """How long ago the sink had taken the whole journal; 0 if it has it now."""
        return 0.0 if self.lag_bytes == 0 and not self.failing else time.monotonic() - self._caught_up

    def run(self) -> None:
        """Read, process, repeat; after a failure, from the same position again with a growing pause."""
        while not self._stopping.is_set():
            draining = self._draining.is_set()  # before the read: what is written until now must still be taken
            batch = self._move()
            if batch is not None and batch.lag_bytes == 0:
                self._caught_up = time.monotonic()
                if draining and not batch.entries:
                    return
                self._stopping.wait(self._interval)

    def stop(self, *, drain_seconds: float) -> None:
        """Let the sink take the rest, for at most `drain_seconds`. What it has not taken waits in the journal."""
        self._draining.set()
        self.join(drain_seconds)
        self._stopping.set()
        self.join(LAST_BATCH_S)

    def _move(self) -> Batch | None:
        """Read a batch and let the sink process it; None after a failure and its pause."""
        try:
            if self._positions is None:
                self._positions = dict(self.sink.committed)
            batch = self._reader.read(self._positions, self._max_bytes)
            self.lag_bytes = batch.lag_bytes + batch.size
            self.sink.process(batch)
            self.committed = dict(self.sink.committed)
        except (CallscopeError, OSError) as error:
            pause = self._failed()
            logger.warning("the %s sink failed and is tried again in %.1f s: %s", self.sink.name, pause, error)
        except Exception:
            pause = self._failed()
            logger.exception("the %s sink failed and gets the same batch again in %.1f s", self.sink.name, pause)
        else:
            self.failing = False
            self._backoff.reset()
            self.lag_bytes = batch.lag_bytes
            self.corrupt_lines += batch.corrupt
            self._positions = batch.positions
            return batch
        self._stopping.wait(pause)
        return None

    def _failed(self) -> float:
        """Count a failure; the seconds until the next attempt."""
        self.failures += 1
        self.failing = True
        return self._backoff.failed()
