"""Terminal tables: lays out rows and sentences in the width of the terminal."""

from __future__ import annotations

import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

Row = Sequence[str]

COLUMNS = 80
"""Width of a pipe, unless the variable COLUMNS sets it."""

NARROWEST = 40

WIDEST = 26
"""Widest column, in characters; a longer text moves the cells after it."""

GAP, INDENT = 2, 2
MARGIN = " " * INDENT


@dataclass(frozen=True)
class Entry:
    """A row, and sentences below it."""

    cells: Row
    below: Sequence[str] = ()


def print_table(heads: Row, rows: Iterable[Row | Entry]) -> None:
    """Print rows under their heads; control codes in cells are replaced."""
    entries = [each if isinstance(each, Entry) else Entry(each) for each in rows]
    table = Table(heads, entries, width())
    bold, plain = ("\x1b[1m", "\x1b[m") if sys.stdout.isatty() else ("", "")
    # Not `click.echo`: it writes UTF-8 to a terminal of another encoding.
    for line in table.head():
        sys.stdout.write(f"{bold}{line}{plain}\n")
    for line in table.body():
        sys.stdout.write(f"{line}\n")


def width() -> int:
    """Return the width of the terminal, in columns."""
    return max(shutil.get_terminal_size((COLUMNS, 24)).columns, NARROWEST)


class Table:
    """Columns at fixed positions; a row that is too wide takes several lines. Pure.

    Every row breaks into lines at the same columns, and so does the head.
    """

    def __init__(self, heads: Row, entries: Iterable[Entry], columns: int) -> None:
        self._heads = [printable(head) for head in heads]
        self._entries = [
            Entry([*map(printable, each.cells)], [*map(printable, each.below)])
            for each in entries
        ]
        self._columns = columns
        self._lines = self._broken(self._widths())

    def head(self) -> Iterator[str]:
        """Yield the lines of the head."""
        yield from self._row(self._heads)

    def body(self) -> Iterator[str]:
        """Yield the lines of the rows."""
        for each in self._entries:
            yield from self._row(each.cells)
            for text in each.below:
                yield from wrapped(text, self._columns, MARGIN)

    def _widths(self) -> list[int]:
        """Return the width of each column; long texts may pass it."""
        rows = (each.cells for each in self._entries)
        columns = list(zip(self._heads, *rows, strict=True))
        widths = [max(map(cell_len, column)) for column in columns]
        cap, gaps = max(widths), GAP * (len(widths) - 1)
        while cap > WIDEST and sum(widths) + gaps > self._columns:
            cap -= 1
            widths = [min(each, cap) for each in widths]
        return widths

    def _broken(self, widths: list[int]) -> list[list[int]]:
        """Return, for each line of a row, where its columns begin."""
        lines: list[list[int]] = [[]]
        at = 0
        for each in widths:
            if lines[-1] and at + each > self._columns:
                lines.append([])
                at = INDENT
            lines[-1].append(at)
            at += each + GAP
        return lines

    def _row(self, cells: Row) -> Iterator[str]:
        rest = iter(cells)
        for places in self._lines:
            yield from self._line([(at, next(rest)) for at in places])

    def _line(self, placed: list[tuple[int, str]]) -> Iterator[str]:
        """Write cells at their positions; one that does not fit moves left, or down."""
        line = ""
        for at, cell in placed:
            if not cell:
                continue
            begin = max(min(at, self._columns - cell_len(cell)), INDENT if at else 0)
            if line and cell_len(line) + GAP > begin:
                yield line
                line = ""
            line += " " * (begin - cell_len(line)) + cell
            if cell_len(line) > self._columns:
                *whole, line = wrapped(line.strip(), self._columns, MARGIN)
                yield from whole
        if line:
            yield line


def wrapped(text: str, columns: int, margin: str = "") -> list[str]:
    """Break a sentence between words; no word is broken."""
    return hanging(margin + text, columns, len(margin) or INDENT + 1)


def for_terminal(text: str) -> str:
    """Break long lines to the width of the terminal, if standard error is one."""
    if not sys.stderr.isatty():
        return text
    lines = (wrapped(line, width()) for line in text.splitlines())
    return "\n".join(part for parts in lines for part in parts)


def hanging(line: str, columns: int, indent: int) -> list[str]:
    """Break a line between words; lines after the first are indented."""
    lead = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line.strip(),
        columns,
        initial_indent=lead,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    ) or [""]


def cell_len(text: str) -> int:
    """Return how many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    letters = [each for each in text if not unicodedata.combining(each)]
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in letters)
    return len(letters) + wide


def console() -> Console:
    """Return a console for rich's own tables, as wide as the terminal."""
    from rich.console import Console

    return Console(highlight=False, width=width())


def printable(text: str) -> str:
    """Replace control codes: names and reasons come from other machines."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
