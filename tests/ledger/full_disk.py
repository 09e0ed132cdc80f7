"""A process for tests: ingests until the disk is full, makes room again, and tells what is in the ledger at the end.

argv[1] is the ledger's path. A limit on the size of this process's files stands for the end of the disk.
"""

import resource
import signal
import sys
from pathlib import Path
from typing import Final

from gateway.errors import LedgerUnavailableError
from gateway.ledger import LedgerSink
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.ledger.queries import Query
from tests.ledger.records import batch, call

BATCH: Final = 500
FULL_BYTES: Final = 1_500_000


def set_limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    ledger = DuckLedger.open(Path(sys.argv[1]))
    with ledger.transaction() as transaction:
        transaction.execute(Query("set global wal_autocheckpoint = '200KB'", {}))
    sink = LedgerSink(ledger)
    set_limit(FULL_BYTES)
    refusals = taken = 0
    calls = [call(error_message=f"{i:x}" * 60) for i in range(BATCH)]
    while refusals < 20 and taken < 20:
        try:
            sink.process(batch(calls, start=10 * BATCH * taken))
        except LedgerUnavailableError as error:
            refusals += 1
            print(error)  # noqa: T201 - for the test's report
            if refusals == 3:
                set_limit(resource.RLIM_INFINITY)
        else:
            taken += 1
    with ledger.snapshot() as snapshot:
        [(rows,)] = snapshot.rows(Query("select count(*) from calls", {}))
    ledger.close()
    print(f"refused {refusals} taken {taken} rows {rows}")  # noqa: T201 - for the test
