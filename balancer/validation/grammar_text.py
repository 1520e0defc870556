"""Grammar text: caps on grammars and regular expressions, by their marks. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from balancer.validation.ambiguity import ambiguity
from edgeserve.errors import BadRequest

KIB = 1024

GBNF = re.compile(
    r'"(?:[^"\\]++|\\.?)*+"?|\[(?:[^\]\\]++|\\.?)*+\]?|#[^\n]*+|[(){}|?*]|\d++',
    re.DOTALL,
)
REGEX = re.compile(r"\\.?|\[(?:[^\]\\]++|\\.?)*+\]?|[(){}|?*]|\d++", re.DOTALL)

REPEATED = 20
"""So many times `repeats` may all repetitions of a grammar or schema come to: llama.cpp
writes out each."""


@dataclass(frozen=True, kw_only=True)
class Caps:
    """How large, how deep, how often and how many; see `BalancerSettings`."""

    size: int = 256 * KIB
    depth: int = 100
    repeats: int = 10_000
    choices: int = 1000
    entries: int = 10_000
    media_hosts: frozenset[str] = frozenset()
    """Hosts from which an engine may fetch media."""


def check_text(text: str, language: re.Pattern[str], where: str, caps: Caps) -> float:
    """Look at a grammar, or at a regular expression; return its repetitions."""
    repeated = _check_marks(language.findall(text), where, caps)
    if not text.startswith("%llguidance"):
        ways = ambiguity(text, pattern=language is REGEX, most=caps.choices)
        within(ways, caps.choices, where, "ways to go on at one place",
                "grammar_choices")  # fmt: skip
    return repeated


def _check_marks(marks: Iterable[str], where: str, caps: Caps) -> float:
    depth = deepest = choices = 0
    repeated = least = 0.0
    counting = False
    for mark in marks:
        if mark in "()":
            depth += 1 if mark == "(" else -1
            deepest = max(deepest, depth)
        elif mark in "|?*":
            choices += 1
        elif mark in "{}":
            counting = mark == "{"
            least = 0
        elif counting and mark.isdecimal():
            count = _number(mark)
            within(count, caps.repeats, where, "repetitions", "grammar_repeats")
            check_order(least, count, where)
            least = count
            repeated += count
    within(deepest, caps.depth, where, "brackets in one another", "grammar_depth")
    within(choices, caps.choices, where, "alternatives and optional parts",
            "grammar_choices")  # fmt: skip
    check_repeated(repeated, where, caps)
    return repeated


def check_repeated(repeated: float, where: str, caps: Caps) -> None:
    """Raise BadRequest where all repetitions together are too many."""
    most = REPEATED * caps.repeats
    within(repeated, most, where, "repetitions in all", "grammar_repeats")


def check_order(least: float, most: float, where: str) -> None:
    """Refuse what llama.cpp writes out until no memory is left."""
    if most < least:
        raise BadRequest(f"{where} repeats from {least:.15g} to {most:.15g} times")


def _number(digits: str) -> float:
    return int(digits) if len(digits) < 16 else float("1e16")


def within(found: float, most: int, where: str, what: str, setting: str) -> None:
    """Raise BadRequest where more was found than may be."""
    if found > most:
        limit = f" (`{setting}`)" if setting else ""
        shown = f"{found:.0f}" if found < 10**12 else "far more"
        raise BadRequest(f"{where} has {shown} {what}; at most {most} may be{limit}")
