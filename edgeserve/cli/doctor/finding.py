"""Findings: what a check has found, in one sentence, and the command that mends it.

Pure. `unknown` is for what could not be checked here, which is no fault.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edgeserve.terminal import hanging, printable

State = Literal["ok", "problem", "unknown"]

MARKS: dict[State, str] = {"ok": "ok", "problem": "PROBLEM", "unknown": "?"}

INDENT = 9
"""The column of sentences and remedies, after the widest mark."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check has found. `cause` names a problem; its remedy is a command."""

    check: str
    state: State
    said: str
    cause: str = ""
    remedy: str = ""

    @property
    def name(self) -> str:
        """The check, and the cause where there is one."""
        return f"{self.check}/{self.cause}" if self.cause else self.check

    def shown(self) -> dict[str, Any]:
        """Render it for JSON."""
        return {
            "check": self.check,
            "state": self.state,
            "cause": self.cause or None,
            "found": self.said,
            "remedy": self.remedy or None,
        }


def ok(check: str, said: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, state="ok", said=said)


def problem(check: str, cause: str, said: str, remedy: str) -> Finding:
    """Return a problem; `remedy` is a command to paste."""
    return Finding(check=check, state="problem", cause=cause, said=said, remedy=remedy)


def unknown(check: str, said: str, remedy: str = "") -> Finding:
    """Return that something could not be checked; `remedy` makes it possible."""
    return Finding(check=check, state="unknown", said=said, remedy=remedy)


def has_problem(found: Iterable[Finding]) -> bool:
    """Whether anything has to be mended."""
    return any(each.state == "problem" for each in found)


def lines(found: Iterable[Finding], columns: int) -> Iterator[str]:
    """Yield the lines for people; a command is never broken, so that it can be pasted.

    Sentences hold names from other machines, so that control codes are replaced.
    """
    for each in found:
        said = printable(f"{each.name}: {each.said}")
        yield from hanging(f"{MARKS[each.state]:<{INDENT}}{said}", columns, INDENT)
        if each.remedy:
            yield f"{'':{INDENT}}$ {printable(each.remedy)}"


def summary(found: Iterable[Finding]) -> str:
    """Return the last line."""
    problems = sum(each.state == "problem" for each in found)
    if not problems:
        return "no problem found"
    return f"{problems} problem{'s' if problems > 1 else ''} found"


def quoted(path: Path | str) -> str:
    """Return a path as a word of a shell command."""
    return shlex.quote(os.fspath(path))
