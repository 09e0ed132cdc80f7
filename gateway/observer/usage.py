"""What each workspace has used of its plan this month, for the usage gauges: counted by the ledger alone."""

import time
from collections.abc import Callable, Mapping

from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger, queries
from gateway.months import month_of


class LedgerUsage:
    """Counts when it is called, for the workspaces of the last configuration that it was given."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._ledger = ledger
        self._clock = clock
        self._workspaces: tuple[str, ...] = ()

    def configure(self, config: Config) -> None:
        """Count for this configuration's workspaces from now on."""
        self._workspaces = tuple(config.workspaces)

    def __call__(self) -> Mapping[str, int]:
        """Calls that count against the plan's limit, by workspace id; empty while the ledger is away."""
        now_ns = self._clock()
        query = queries.used_by_workspace(self._workspaces, month_of(now_ns).start_ns, now_ns)
        try:
            with self._ledger.snapshot() as snapshot:
                found = dict(snapshot.rows(query))
        except LedgerUnavailableError:  # a scrape must tell of it, not fail with it; the ledger's sink logs it
            return {}
        return {workspace_id: int(found.get(workspace_id, 0)) for workspace_id in self._workspaces}
