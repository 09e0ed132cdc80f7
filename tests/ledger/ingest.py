"""A process for tests to kill: takes the journal at argv[1] into the ledger at argv[2], in small batches, for ever."""

import sys
from pathlib import Path

from gateway.calls import ToolCall
from gateway.journal import Reader, journal_id
from gateway.ledger import LedgerSink, open_ledger
from gateway.ledger.duckdb_driver import DuckLedger

if __name__ == "__main__":
    journal, target = Path(sys.argv[1]), sys.argv[2]
    if target.startswith("postgresql:"):
        sink = LedgerSink(open_ledger(target, journal.parent), journal_id=journal_id(journal))
    else:
        sink = LedgerSink(DuckLedger.open(Path(target)))
    reader = Reader(journal, ToolCall)
    while True:
        sink.process(reader.read(sink.committed, 20_000))
        print(sum(sink.committed.values()), flush=True)  # noqa: T201 - how far it came, for the test that kills it
