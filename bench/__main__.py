"""`python -m bench`: how fast, against what, in one run. `make bench` calls it.

The machine's noise is larger than what is measured here: read the ratios, and the CPU a call.
"""

import argparse

from rich.console import Console

from bench import ingesting, relaying


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("relay", "observer", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=200_000, help="that the observer takes in (default: %(default)s)")
    parser.add_argument("--ledger", help="a PostgreSQL database to take calls into, instead of a DuckDB file")
    options = parser.parse_args()
    console = Console()
    if options.part in ("relay", "all"):
        relaying.run(console, rounds=options.rounds, seconds=options.seconds)
    if options.part in ("observer", "all"):
        ingesting.run(console, calls=options.calls, ledger_url=options.ledger)


if __name__ == "__main__":
    main()
