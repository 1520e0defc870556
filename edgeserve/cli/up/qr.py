"""QR code: a text as characters that a phone's camera reads off a terminal."""

from __future__ import annotations

BORDER = 2
"""Light modules around the code. The standard says four; cameras read it with two."""

COLOURS, PLAIN = "\x1b[40;97m", "\x1b[m"
"""White on black, whatever the terminal's colours are: no code may be inverted."""

HALVES = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
"""Upper and lower module (1 is dark) → a character that leaves dark ones black."""


def qr_lines(text: str) -> list[str]:
    """Return the lines to print; two rows of modules make one line."""
    # Imported where it is shown: no other command needs it.
    import segno

    rows = [
        list(row)
        for row in segno.make(text, error="l", micro=False).matrix_iter(border=BORDER)
    ]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    return [
        COLOURS + "".join(map(_character, upper, lower)) + PLAIN
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


def _character(upper: int, lower: int) -> str:
    return HALVES[upper, lower]


def fits(text: str, columns: int) -> bool:
    """Whether the code is no wider than so many columns."""
    import segno

    code = segno.make(text, error="l", micro=False)
    return code.symbol_size(border=BORDER)[0] <= columns
