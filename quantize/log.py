"""Turn the quantizer's log, which comes in pieces of lines, into events. Pure.

The log is the only place where llama.cpp says how far it is, what a tensor becomes, and
why it stopped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from quantize.blocks import canonical
from quantize.jobs import TensorBegun, TensorEnded, TensorMisfit

Event = TensorBegun | TensorEnded | TensorMisfit

_BEGUN = re.compile(r"\[ *(\d+)/ *(\d+)\] (\S+) +- \[[^]]*\], type = *(\w+), ")
_CONVERTED = re.compile(r"converting to +(\w+) \.\. ")
_DRY = re.compile(r"size = +[\d.]+ MiB -> +[\d.]+ MiB \((\w+)\)$")
_SIZE = re.compile(r"size = +[\d.]+ MiB")
_MISFIT = re.compile(
    r"warning: (\S+) +- ncols +\d+ not divisible by +\d+"
    r" \(required for type +(\w+)\).*-> falling back to +(\w+)"
)
_PROBLEM = re.compile(r"error|fail|disabled|requires an imatrix|unsupported", re.I)


@dataclass
class LogReader:
    """Feed it the log as it comes; it returns what that completes.

    `problems` keeps the lines that say why a run failed.
    """

    problems: list[str] = field(default_factory=list[str])
    _line: str = ""
    _tensor: str | None = None
    _kind: str = ""

    def feed(self, text: str) -> list[Event]:
        """Take one more piece."""
        events = list[Event]()
        for piece in text.splitlines(keepends=True):
            self._line += piece
            events.extend(self._begin())
            if piece.endswith("\n"):
                events.extend(self._end(self._line.rstrip()))
                self._line = ""
        return events

    def _begin(self) -> list[Event]:
        found = _BEGUN.search(self._line)
        if not found or found[3] == self._tensor:
            return []
        self._tensor, self._kind = found[3], found[4]
        return [TensorBegun(int(found[1]), int(found[2]), found[3])]

    def _end(self, line: str) -> list[Event]:
        if self._tensor is None or not _SIZE.search(line):
            return self._aside(line)
        found = _DRY.search(line) or _CONVERTED.search(line)
        kind = found[1] if found else self._kind
        tensor, self._tensor = self._tensor, None
        return [TensorEnded(tensor, _known(kind))]

    def _aside(self, line: str) -> list[Event]:
        found = _MISFIT.search(line)
        if found:
            return [TensorMisfit(found[1], _known(found[2]), _known(found[3]))]
        if _PROBLEM.search(line):
            self.problems.append(line.strip(" ="))
        return []


def _known(kind: str) -> str:
    return canonical(kind) or kind
