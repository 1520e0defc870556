"""Print a table: long texts folded to a terminal's width, nothing folded in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Row = Sequence[str]

PIPE_COLUMNS = 1000

WHOLE = 24
"""Longest text in letters that is never folded: ids and addresses get pasted."""

FOLDED = 12
"""Letters that a column of longer texts keeps; a table may run over the edge then."""

GAP = 2


def print_table(heads: Row, rows: Iterable[Row]) -> None:
    """Print rows under their heads. Nothing in a cell can steer the terminal."""
    # rich costs 60 ms that `--help` need not pay.
    from rich.table import Table
    from rich.text import Text

    texts = [[Text(printable(cell)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    needed = -GAP
    for head, *column in zip(map(Text, heads), *texts, strict=True):
        widest = max(text.cell_len for text in (head, *column))
        table.add_column(head, overflow="fold", no_wrap=widest <= WHOLE)
        needed += GAP + (widest if widest <= WHOLE else FOLDED)
    for row in texts:
        table.add_row(*row)
    out = console()
    out.width = max(out.width, needed)
    out.print(table)


def console() -> Console:
    """Return a console that folds at a terminal's width, and nowhere in a pipe."""
    from rich.console import Console

    made = Console(highlight=False)
    if not made.is_terminal:
        made.width = PIPE_COLUMNS
    return made


def printable(text: str) -> str:
    """Replace control codes: names and reasons come from other machines."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
