"""Where panels stand: Grafana's grid has 24 columns, a row of it is 30 pixels high."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from grafanalib.core import GridPos

from dashboards.grafanalib_ext import Panel, Row

COLUMNS: Final = 24


class Section:
    """Lines of panels below a heading; without one, they are what a reader sees first: the answer."""

    def __init__(self, title: str, *lines: Sequence[Panel]) -> None:
        self.title = title
        self.lines = lines


def lay_out(sections: Sequence[Section]) -> list[Panel | Row]:
    """The panels of all sections with their places, numbered from 1.

    Raises:
        ValueError: a line of panels is not as wide as the grid.
    """
    placed: list[Panel | Row] = []
    y = 0
    for section in sections:
        if section.title:
            placed.append(Row(title=section.title, id=len(placed) + 1, at=GridPos(h=1, w=COLUMNS, x=0, y=y)))
            y += 1
        for line in section.lines:
            if sum(panel.width for panel in line) != COLUMNS:
                raise ValueError(f"the line that begins with {line[0].title!r} is not {COLUMNS} columns wide")
            height = max(panel.height for panel in line)
            x = 0
            for panel in line:
                at = GridPos(h=height, w=panel.width, x=x, y=y)
                placed.append(replace(panel, id=len(placed) + 1, at=at))
                x += panel.width
            y += height
    return placed
