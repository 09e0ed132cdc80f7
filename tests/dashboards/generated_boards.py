"""The generated dashboards as a test reads them: panels, queries, variables, links."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent.parent
FOLDER: Final = ROOT / "dashboards" / "generated"
RULES: Final = ROOT / "prometheus" / "rules"

Json = dict[str, Any]

BOARDS: Final[dict[str, Json]] = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
"""By uid."""
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
GIVEN: Final = frozenset({"__rate_interval", "__range", "__range_s", "__auto", "1"})
"""What Grafana itself puts into a query, and a group of `label_replace`."""


class Query(NamedTuple):
    """One query of one panel."""

    board: str
    panel: str
    kind: str
    """`prometheus`, `loki` or `tempo`."""
    text: str
    target: Json

    def __str__(self) -> str:
        return f"{self.board}: {self.panel} {self.target['refId']}"


def panels(board: Json) -> list[Json]:
    """All that ask something; rows' headings do not."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def queries(kind: str = "") -> list[Query]:
    """The queries of all panels, or those of one kind."""
    return [
        Query(uid, panel["title"], target["datasource"]["type"], target.get("expr") or target["query"], target)
        for uid, board in BOARDS.items()
        for panel in panels(board)
        for target in panel["targets"]
        if kind in ("", target["datasource"]["type"])
    ]


def annotations(board: Json) -> list[Json]:
    """Its annotations that are queries."""
    return [annotation for annotation in board["annotations"]["list"] if "expr" in annotation]


def variables(board: Json) -> dict[str, Json]:
    """Its variables, by name."""
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def named_in(text: str) -> set[str]:
    """The variables that a query, or an address, mentions."""
    return {braced or plain for braced, plain in _VARIABLE.findall(text)} - GIVEN


def data_links(panel: Json) -> Iterator[Json]:
    """The links of a panel's values: of all of them, and of single fields."""
    config = panel["fieldConfig"]
    yield from config["defaults"].get("links", [])
    for override in config["overrides"]:
        for changed in override["properties"]:
            if changed["id"] == "links":
                yield from changed["value"]
