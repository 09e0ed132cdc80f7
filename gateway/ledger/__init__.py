"""Every call as an exact, queryable row.

The laws: a row and the journal's position behind it are committed in one transaction, so that each call of the journal
is there exactly once, whatever is killed when. Of a DuckDB file one process, the observer, is the owner; a PostgreSQL
ledger is shared by the observers of several replicas.
"""

from gateway.ledger.driver import Ledger, QueryTimeoutError, Snapshot
from gateway.ledger.ledger_sink import LedgerSink
from gateway.ledger.open_ledger import open_ledger

__all__ = ["Ledger", "LedgerSink", "QueryTimeoutError", "Snapshot", "open_ledger"]
