"""What each workspace has used of its plan this month, for the usage gauges: counted by the ledger alone."""

import time
from collections.abc import Callable, Mapping

from gateway.analytics.periods import month_of
from gateway.config import Config
from gateway.ledger import Ledger, queries
from gateway.ledger.queries import Scope


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
        """Calls that count against the plan's limit, by workspace id, all of one state of the ledger.

        Raises:
            LedgerUnavailableError: the ledger does not answer.
        """
        now_ns = self._clock()
        from_ns = month_of(now_ns).start_ns
        used = {}
        with self._ledger.snapshot() as snapshot:
            for workspace_id in self._workspaces:
                scope = Scope(workspace_id=workspace_id, from_ns=from_ns, to_ns=now_ns, filters={})
                [(calls,)] = snapshot.rows(queries.used(scope))
                used[workspace_id] = int(calls)
        return used
