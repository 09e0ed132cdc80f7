"""`python -m dashboards [FOLDER]`: write every dashboard's JSON; with `--check`, say which of them are not current."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dashboards.boards.call import call
from dashboards.boards.gateway import gateway
from dashboards.boards.logs import logs_dashboard
from dashboards.boards.members import members
from dashboards.boards.overview import overview
from dashboards.boards.servers import servers
from dashboards.boards.tools import tools
from dashboards.boards.usage import usage

GENERATED: Final = Path(__file__).parent / "generated"


def documents() -> Mapping[str, str]:
    """The JSON of every dashboard, by its file's name."""
    trees = (overview(), tools(), members(), servers(), logs_dashboard(), call(), usage(), gateway())
    return {f"{tree['uid']}.json": json.dumps(tree, indent=2, ensure_ascii=False) + "\n" for tree in trees}


def stale(folder: Path) -> list[str]:
    """The names of files that should be there and are not, that are and should not, or that say something else."""
    wanted = documents()
    there = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def main() -> int:
    """Write them, or check them."""
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=GENERATED)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail if a file is not current")
    arguments = parser.parse_args()
    if arguments.check:
        found = stale(arguments.folder)
        if found:
            sys.stderr.write(f"not current: {', '.join(found)}: run `make generate` and commit what it writes\n")
        return 1 if found else 0
    wanted = documents()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for path in arguments.folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (arguments.folder / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
