"""A relay's lines without a relay: so many calls a second into a journal, until the standard input ends."""

import select
import sys
import time
from pathlib import Path

from bench.observer import write_call
from gateway.journal import Writer

PAUSE_S = 0.02


def main(journal: str, per_second: int, workspace_id: str) -> None:
    """Write what is due, and wait a little."""
    writer = Writer(Path(journal), "bench")
    began, written = time.monotonic(), 0
    while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
        due = int((time.monotonic() - began) * per_second)
        for number in range(written, due):
            write_call(writer, number, workspace_id=workspace_id)
        written = due
    writer.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
