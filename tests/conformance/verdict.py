"""Compares what passes directly with what passes through node and balancer. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Outcomes = Mapping[str, str]
"""Test → passed, failed, skipped."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What became of the tests, by their ids.

    `direct` pass against an engine alone, `through` against us, whether directly or
    not. `differs` pass directly alone, for a reason that is written down;
    `unexplained` for none. `stale` reasons explain nothing any more.
    """

    tests: int
    direct: frozenset[str]
    through: frozenset[str]
    differs: Mapping[str, str]
    unexplained: frozenset[str]
    stale: frozenset[str]

    @property
    def fine(self) -> bool:
        """Whether everything is explained, and nothing is explained away."""
        return not (self.unexplained or self.stale)

    def told(self) -> str:
        """Summarize."""
        lines = [
            f"{self.tests} of llama.cpp's server tests",
            f"{len(self.direct):4} pass against the engine alone",
            f"{len(self.through):4} pass through us,"
            f" {len(self.through & self.direct)} of those",
            f"{len(self.differs):4} rightly differ",
            f"{len(self.unexplained):4} unexplained",
        ]
        lines += [f"     {each}" for each in sorted(self.unexplained)]
        lines += [f"     passes, take it off the list: {e}" for e in sorted(self.stale)]
        return "\n".join(lines)


def verdict(direct: Outcomes, through: Outcomes, reasons: Mapping[str, str]) -> Verdict:
    """Compare. `reasons` are by test, in which `*` stands for anything."""
    passing = _passed(direct)
    lost = passing - _passed(through)
    why = {test: found for test in lost if (found := _reason(test, reasons))}
    stale = frozenset(
        each for each in reasons if _all_pass(each, direct, _passed(through))
    )
    return Verdict(
        tests=len(direct),
        direct=passing,
        through=_passed(through),
        differs=why,
        unexplained=frozenset(lost - why.keys()),
        stale=stale,
    )


def _passed(outcomes: Outcomes) -> frozenset[str]:
    return frozenset(test for test, what in outcomes.items() if what == "passed")


def _all_pass(pattern: str, tests: Iterable[str], passing: frozenset[str]) -> bool:
    meant = {test for test in tests if _matches(test, pattern)}
    return bool(meant) and meant <= passing


def _reason(test: str, reasons: Mapping[str, str]) -> str:
    return next((why for each, why in reasons.items() if _matches(test, each)), "")


def _matches(test: str, pattern: str) -> bool:
    # Ids have brackets, which would be a set of characters.
    return fnmatch.fnmatchcase(test, pattern.replace("[", "[[]"))
