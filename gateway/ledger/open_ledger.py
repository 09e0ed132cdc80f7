"""Which ledger a configuration means: a file beside the journal, or a database that replicas share."""

from pathlib import Path

from gateway.ledger.driver import Ledger
from gateway.ledger.duckdb_driver import DuckLedger


def open_ledger(url: str | None, data_dir: Path) -> Ledger:
    """Open the PostgreSQL database at `url`, or, without one, the DuckDB file in `data_dir`.

    Raises:
        StartError: the file is another process's, the server refuses, or a newer Callscope has written it.
    """
    if url is None:
        return DuckLedger.open(data_dir / "ledger.duckdb")
    from gateway.ledger.postgres_driver import PostgresLedger  # noqa: PLC0415 - libpq is loaded by those who use it

    return PostgresLedger.open(url)
