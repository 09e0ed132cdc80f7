"""`python -m bench`: how fast, against what, in one run. `make bench` calls it.

The machine's noise is larger than what is measured here: read the ratios, and the CPU a call.
"""

import argparse
from pathlib import Path

from rich.console import Console

from bench import ledger, observer, relay
from bench.ledger_rows import Shape


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("relay", "observer", "ledger", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=200_000, help="that the observer takes in (default: %(default)s)")
    parser.add_argument("--before", type=Path, help="another checkout, whose relay is measured in the same rounds")
    parser.add_argument("--ledger", help="an empty PostgreSQL database to take calls into, instead of a DuckDB file")
    _add_ledger(parser)
    options = parser.parse_args()
    console = Console()
    if options.part in ("relay", "all"):
        relay.run(console, rounds=options.rounds, seconds=options.seconds, before=options.before)
    if options.part in ("observer", "all"):
        observer.run(console, calls=options.calls, ledger_url=options.ledger)
    if options.part == "ledger":  # takes minutes and a gigabyte: only if asked for
        shape = Shape(options.rows, options.days, options.workspaces)
        ledger.run(
            console,
            shape=shape,
            ledger_url=options.ledger,
            folder=options.folder,
            rounds=options.rounds,
            rate=options.rate,
        )


def _add_ledger(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ledger", "the analytics API's answers over a full ledger")
    group.add_argument("--rows", type=int, default=10_000_000, help="calls in the ledger (default: %(default)s)")
    group.add_argument("--days", type=int, default=90, help="that they span (default: %(default)s)")
    group.add_argument("--workspaces", type=int, default=10, help="the first has two fifths (default: %(default)s)")
    group.add_argument("--rate", type=int, default=1_000, help="calls a second meanwhile (default: %(default)s)")
    group.add_argument("--folder", type=Path, help="where the ledger is kept, or is from the run before")


if __name__ == "__main__":
    main()
