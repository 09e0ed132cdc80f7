"""A process for tests to kill: takes the journal at argv[1] into the ledger at argv[2], in small batches, for ever."""

import sys
from pathlib import Path

from gateway.calls import ToolCall
from gateway.journal import Reader
from gateway.ledger import Ledger, LedgerSink

if __name__ == "__main__":
    sink = LedgerSink(Ledger.open(Path(sys.argv[2])))
    reader = Reader(Path(sys.argv[1]), ToolCall)
    while True:
        sink.absorb(reader.read(sink.durable, 20_000))
        print(sum(sink.durable.values()), flush=True)  # noqa: T201 - how far it came, for the test that kills it
