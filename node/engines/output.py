"""The last lines an engine printed, and what they say about its end. Pure."""

from __future__ import annotations

import re
import signal
from collections import deque
from collections.abc import Iterable

from node.placement import Reader

KEPT = 40
"""Lines of output remembered per engine."""

WIDEST = 1000
"""Characters kept of a line."""

LONGEST = 400
"""Characters of a reason; it travels in every report."""

TELLING = re.compile(
    r"error|fail|unable|cannot|can't|abort|assert|invalid|not found|out of memory"
    r"|terminate|what\(\)|no such|denied|in use|signal|corrupt|out of bounds|missing",
    re.IGNORECASE,
)
PREFIX = re.compile(r"^[\d.]+ [A-Z] +")
"""llama.cpp's clock and level: `0.00.722.674 I `."""


class Output:
    """A ring of lines, and what longer-gone ones said of layers and memory."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=KEPT)
        self.placed = Reader()

    def add(self, raw: bytes) -> str:
        """Keep one line; returns it decoded."""
        line = raw.decode(errors="replace").rstrip()[:WIDEST]
        if line:
            self.lines.append(line)
            self.placed.see(line)
        return line


def telling(lines: Iterable[str]) -> str:
    """Return the lines that say what went wrong, else the last three."""
    said = [re.sub(r" +", " ", PREFIX.sub("", line)) for line in lines]
    chosen = [line for line in said if TELLING.search(line)] or said[-3:]
    unique = list(dict.fromkeys(chosen))
    text = ""
    # From the end: the last error is the one that ended it.
    for line in reversed(unique):
        joined = f"{line} | {text}" if text else line
        if len(joined) > LONGEST:
            return text or line[:LONGEST]
        text = joined
    return text


def ending(status: int, lines: Iterable[str]) -> str:
    """Say how a process ended, and why as far as its output tells."""
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        how = f"killed by {name}{hint}"
    else:
        how = f"ended with status {status}"
    why = telling(lines)
    return f"{how}: {why}" if why else how
