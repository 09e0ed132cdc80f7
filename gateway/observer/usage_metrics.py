"""What each workspace has used of its plan, and its calls, for the exact gauges: counted by the ledger alone."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC
from typing import Final

from gateway.analytics.periods import oldest_ns, starts
from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger
from gateway.ledger.totals import Totals, totals
from gateway.months import month_of

WAIT_S: Final = 3.0
"""Seconds that a scrape waits for the ledger; Prometheus gives all of `/metrics` ten."""
MAX_AGE_S: Final = 60.0
"""Seconds for which a count stands in for one that takes longer than a scrape waits."""


class LedgerUsage:
    """Counts when it is called, for the workspaces of the last configuration that it was given."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], int] = time.time_ns, wait: float = WAIT_S) -> None:
        self._ledger = ledger
        self._clock = clock
        self._wait = wait
        self._config = Config()
        self._lock = threading.Lock()
        self._asked: Future[Mapping[str, Totals]] | None = None
        self._last: Mapping[str, Totals] = {}
        self._last_at = 0.0

    def configure(self, config: Config) -> None:
        """Count for this configuration's workspaces from now on."""
        self._config = config

    def __call__(self) -> Mapping[str, Totals]:
        """What is counted of each workspace, by its id; empty while the ledger is away.

        A ledger that says nothing, not even that it is away, holds nobody up: then it is the last count for a minute.
        """
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(target=self._answer, args=(self._asked,), name="usage", daemon=True).start()
            asked = self._asked
        try:
            return asked.result(self._wait)
        except TimeoutError:
            return self._last if time.monotonic() - self._last_at < MAX_AGE_S else {}

    def _answer(self, asked: Future[Mapping[str, Totals]]) -> None:
        try:
            self._last, self._last_at = self._count(), time.monotonic()
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            asked.set_exception(error)
        else:
            asked.set_result(self._last)

    def _count(self) -> Mapping[str, Totals]:
        now_ns, config = self._clock(), self._config
        by_retention: dict[int | None, list[str]] = {}
        for slug, workspace in config.workspaces.items():
            by_retention.setdefault(config.plan_of(workspace).retention_days, []).append(slug)
        found: dict[str, Totals] = dict.fromkeys(config.workspaces, Totals())
        try:
            with self._ledger.snapshot() as snapshot:
                for retention_days, slugs in by_retention.items():
                    oldest = oldest_ns(now_ns, retention_days)
                    query = totals(
                        slugs,
                        month_ns=month_of(now_ns).start_ns,
                        since_ns=[max(begin, oldest) for begin in starts(now_ns, UTC)],
                        to_ns=now_ns,
                    )
                    found.update((slug, Totals(*counts)) for slug, *counts in snapshot.rows(query))
        except LedgerUnavailableError:  # a scrape must tell of it, not fail with it; the ledger's sink logs it
            return {}
        return found
