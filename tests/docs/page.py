"""Page: what a page of docs/ tells a reader to do, step by step. Pure.

The paragraph before a block says where it belongs. "On `nuc`" names the machine of a
block of commands; without it, it is the machine of the block before. A `text` block
after them is what they show: `…` stands for anything, a number for any number but 0.
Lines come in this order, but after a line that is only `…` the next may be anywhere.
"in `PATH`" names the file that any other block is, or is added to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

MACHINE = re.compile(r"\b[Oo]n `([a-z][a-z0-9-]*)`")
FILE = re.compile(r"\bin\s+`(\S+)`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = r"\d[\d.,]*"
ZERO, OTHER = r"(?<![\d.,])0(?![\d.,])", rf"(?!0(?![\d.,])){NUMBER}"
WILD = re.compile(rf"( ?… ?|{NUMBER})")


@dataclass(frozen=True)
class Commands:
    """A block of commands on a machine, and the lines that it shows."""

    machine: str
    script: str
    shown: tuple[str, ...] = ()

    @property
    def last(self) -> str:
        """Its last command, without comments: what a reader sees at the end."""
        joined = self.script.replace("\\\n", " ")
        return joined.strip().splitlines()[-1].split("  #")[0].strip()


@dataclass(frozen=True)
class Settings:
    """A block to paste into a file on a machine."""

    machine: str
    path: str
    text: str


Step = Commands | Settings


class _Block(NamedTuple):
    before: str
    language: str
    text: str


class UnclearPage(Exception):
    """A block of a page does not say where it belongs."""


def steps(text: str) -> list[Step]:
    """Return the steps of a page, in its order. Raises UnclearPage."""
    found = list[Step]()
    machine = ""
    for block in _blocks(text):
        machine = [machine, *MACHINE.findall(block.before)][-1]
        if block.language == "text":
            found.append(_shown(found, block.text))
        elif not machine:
            raise UnclearPage(f"on which machine? {block.text!r}")
        elif block.language == "sh":
            found.append(Commands(machine, block.text))
        else:
            found.append(_settings(machine, block))
    return found


def missing(output: str, shown: tuple[str, ...]) -> list[str]:
    """Return the lines that a page shows and the output lacks, in this order."""
    said = [" ".join(each.split()) for each in output.splitlines()]
    rest = iter(said)
    for number, line in enumerate(shown):
        if line.strip() == "…":
            rest = iter(said)
            continue
        pattern = _pattern(line)
        if not any(re.search(pattern, each) for each in rest):
            return list(shown[number:])
    return []


def _pattern(line: str) -> str:
    """Return what an output's line is like; blanks are alike, and so are schemes."""
    found = "".join(map(_piece, WILD.split(" ".join(line.split()))))
    return re.sub("https?:", "https?:", found)


def _piece(shown: str) -> str:
    if "…" in shown:
        return ".*"
    if not shown[:1].isdigit():
        return re.escape(shown)
    return ZERO if shown == "0" else OTHER


def _blocks(text: str) -> Iterator[_Block]:
    """Find the blocks, each with the paragraph before it."""
    end = 0
    for found in FENCE.finditer(text):
        before = text[end : found.start()].rstrip().rpartition("\n\n")[2]
        yield _Block(" ".join(before.split()), found[1], found[2])
        end = found.end()


def _shown(found: list[Step], text: str) -> Commands:
    """Take the block of commands before back, with what it shows."""
    if not (found and isinstance(found[-1], Commands)):
        raise UnclearPage(f"no command shows {text!r}")
    commands = found.pop()
    assert isinstance(commands, Commands)
    lines = tuple(each for each in text.splitlines() if each.strip())
    return Commands(commands.machine, commands.script, (*commands.shown, *lines))


def _settings(machine: str, block: _Block) -> Settings:
    named = FILE.findall(block.before)
    if not named:
        raise UnclearPage(f"in which file? {block.text!r}")
    return Settings(machine, named[-1], block.text)
