"""Gauges of workspaces, tokens and plans: what the configuration says, and what the ledger has counted beside it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC
from typing import Final

from prometheus_client import Metric as MetricFamily
from prometheus_client.registry import Collector

from gateway.analytics.periods import oldest_ns, starts
from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger
from gateway.ledger.queries import Totals, totals
from gateway.months import month_of
from gateway.observer import signals
from gateway.observer.exposition import metric_family

WAIT_S: Final = 3.0
"""Seconds that a scrape waits for the ledger; Prometheus gives all of `/metrics` ten."""
MAX_AGE_S: Final = 60.0
"""Seconds for which a count stands in for one that takes longer than a scrape waits."""


class WorkspaceMetrics(Collector):
    """The gauges of the last configuration that it was given. Each scrape counts in the ledger."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], int] = time.time_ns, wait: float = WAIT_S) -> None:
        self._ledger = ledger
        self._clock = clock
        self._wait = wait
        self._config = Config()
        self._lock = threading.Lock()
        self._pending: Future[Mapping[str, Totals]] | None = None
        self._last: Mapping[str, Totals] = {}
        self._last_at = 0.0

    def configure(self, config: Config) -> None:
        self._config = config

    def collect(self) -> Iterator[MetricFamily]:
        config = self._config
        workspaces = config.workspaces
        yield metric_family(
            signals.TOKEN_INFO,
            [
                ((slug, token.id, token.name, token.kind), 1)
                for slug, workspace in workspaces.items()
                for token in workspace.tokens
            ],
        )
        yield metric_family(
            signals.WORKSPACE_INFO,
            [((slug, workspace.name or slug, workspace.plan), 1) for slug, workspace in workspaces.items()],
        )
        limits = {slug: config.plan_of(workspace).calls_per_month for slug, workspace in workspaces.items()}
        yield metric_family(
            signals.PLAN_LIMIT_CALLS,
            [((slug, workspaces[slug].plan), limit) for slug, limit in limits.items() if limit is not None],
        )
        period_end = month_of(self._clock()).end_ns / 1e9
        yield metric_family(signals.USAGE_PERIOD_END, [((slug,), period_end) for slug in workspaces])
        usage = {slug: counted for slug, counted in self.usage().items() if slug in workspaces}
        yield metric_family(signals.USAGE_CALLS, [((slug,), counted.used) for slug, counted in usage.items()])
        yield metric_family(
            signals.LEDGER_CALLS,
            [
                ((slug, period), calls)
                for slug, counted in usage.items()
                for period, calls in (("today", counted.today), ("week", counted.week), ("month", counted.month))
            ],
        )

    def usage(self) -> Mapping[str, Totals]:
        """The totals of each workspace, by its id; empty while the ledger is away.

        A ledger that does not respond in time holds no scrape up: the last totals are returned for a minute, then none.
        """
        with self._lock:  # one query at a time: a scrape that finds one running waits for it too
            if self._pending is None or self._pending.done():
                self._pending = Future()
                threading.Thread(target=self._resolve, args=(self._pending,), name="usage", daemon=True).start()
            pending = self._pending
        try:
            return pending.result(self._wait)
        except TimeoutError:
            return self._last if time.monotonic() - self._last_at < MAX_AGE_S else {}

    def _resolve(self, pending: Future[Mapping[str, Totals]]) -> None:
        try:
            self._last, self._last_at = self._count(), time.monotonic()
        except Exception as error:  # noqa: BLE001 - the scrape that waits raises it
            pending.set_exception(error)
        else:
            pending.set_result(self._last)

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
        except LedgerUnavailableError:  # the rest of the scrape goes on; the ledger's sink logs it
            return {}
        return found
