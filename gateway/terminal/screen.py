"""The terminal that is written to, and tables that fit into it."""

import io
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

GAP: Final = 2
"""Columns between two cells."""
ELASTIC: Final = 24
"""Columns that an elastic column keeps as long as there are others to go."""
UNLIMITED_WIDTH: Final = 400
"""Of what is no terminal: whoever reads it there cuts it himself."""


class Terminal(Console):
    """Standard output; that nobody reads it any more is the command's to handle, as any other error."""

    def on_broken_pipe(self) -> NoReturn:
        """Raise again what is being handled."""
        raise  # noqa: PLE0704 - rich calls this in its except block


def terminal() -> Terminal:
    """The terminal, or, where output goes elsewhere, one that is wide enough for every line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # where blocks and names cannot be written, a ? is better than nothing
    found = Terminal(highlight=False)
    return found if found.is_terminal else Terminal(highlight=False, width=UNLIMITED_WIDTH)


def fitted(
    headings: Sequence[str],
    rows: Sequence[Sequence[Text | str]],
    width: int,
    *,
    words: Sequence[str],
    expendable: Sequence[str] = (),
    elastic: str | None = None,
) -> Table:
    """A table without lines that is no wider than `width`.

    Columns of `words` begin at the left. What is `expendable` goes, in this order, until the rest fits. The `elastic`
    one takes the space that is left, and is cut where there is not enough.
    """
    cells = [[Text(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    needs = {
        heading: max([cell_len(heading), *(row[i].cell_len for row in cells)]) for i, heading in enumerate(headings)
    }
    if elastic is not None:
        needs[elastic] = min(needs[elastic], max(cell_len(elastic), ELASTIC))
    for heading in expendable:
        if heading in needs and sum(needs.values()) + GAP * (len(needs) - 1) > width:
            del needs[heading]
    if elastic is not None:
        rest = width - sum(need for heading, need in needs.items() if heading != elastic) - GAP * (len(needs) - 1)
        needs[elastic] = max(rest, 1)
    found = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="dim")
    for heading, need in needs.items():
        found.add_column(
            heading,
            width=need,
            justify="left" if heading in words else "right",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in cells:
        found.add_row(*(cell for heading, cell in zip(headings, row, strict=True) if heading in needs))
    return found
