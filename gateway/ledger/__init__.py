"""Every call as an exact, queryable row.

The laws: a row and the journal's position behind it are committed in one transaction, so that each call of the journal
is there exactly once, whatever is killed when. A DuckDB file belongs to one process, the observer; a PostgreSQL ledger
is shared by the observers of several replicas.
"""

from pathlib import Path

from gateway.ledger.driver import Ledger, QueryTimeoutError, Snapshot
from gateway.ledger.ledger_sink import LedgerSink

__all__ = ["Ledger", "LedgerSink", "QueryTimeoutError", "Snapshot", "open_ledger"]


def open_ledger(url: str | None, data_dir: Path) -> Ledger:
    """Open the PostgreSQL database at `url`, or, without one, the DuckDB file in `data_dir`.

    Raises:
        StartError: another process has the file, the server rejects us, or a newer Callscope has written the ledger.
    """
    # A database's library takes a while to import, and commands that only need the queries do without.
    if url is None:
        from gateway.ledger.duckdb_driver import DuckLedger  # noqa: PLC0415

        return DuckLedger.open(data_dir / "ledger.duckdb")
    from gateway.ledger.postgres_driver import PostgresLedger  # noqa: PLC0415

    return PostgresLedger.open(url)
