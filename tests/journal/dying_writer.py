"""A process that writes calls, says so, and waits to be killed: `python -m tests.journal.dying_writer ROOT CALLS`."""

import signal
import sys
from pathlib import Path

from gateway.journal import Writer
from tests.journal.lines import end, start


def main() -> None:
    """Leave two calls open, one of them since before the first of many segments ended."""
    writer = Writer(Path(sys.argv[1]), "relay-0", segment_bytes=5_000)
    writer.append(start("open from the beginning"))
    for number in range(int(sys.argv[2])):
        writer.append(start(f"{number}"))
        writer.append(end(f"{number}"))
    writer.append(start("open at the end"))
    sys.stdout.write(f"{writer.writer_id}\n")
    sys.stdout.flush()
    signal.pause()


if __name__ == "__main__":
    main()
