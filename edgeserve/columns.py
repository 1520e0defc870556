"""Print a table: folded to a terminal's width, unfolded into a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Row = Sequence[str]

PIPE_COLUMNS = 1000


def print_table(heads: Row, rows: Iterable[Row]) -> None:
    """Print rows under their heads. Nothing in a cell can steer the terminal."""
    # rich costs 60 ms that `--help` need not pay.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(Text(head), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def printable(text: str) -> str:
    """Replace control codes: names and reasons come from other machines."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
