"""Every call as an exact, queryable row.

The laws: one process, the observer, has the file open. A row and the journal's position behind it are committed in
one transaction, so that each call of the journal is there exactly once, whatever is killed when.
"""

from gateway.ledger.duck import Ledger, Snapshot
from gateway.ledger.writer import LedgerSink

__all__ = ["Ledger", "LedgerSink", "Snapshot"]
