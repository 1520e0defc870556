"""Grammar ambiguity: in how many ways a grammar or pattern can go on. Pure.

llama.cpp follows every way at once, for each token of its vocabulary, and finds those
that are the same by comparing each with each. `"a"?` two hundred times takes twenty
seconds a request; twelve rules, each of which is the next one twice and can be empty,
take for ever. Neither is large, deep or long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_GBNF = re.compile(
    r"""(?P<skip>\#[^\n]*+|\s++)
    |(?P<rule>[A-Za-z0-9_-]++)(?=\s*+::=)
    |(?P<skip2>::=)
    |(?P<name>[A-Za-z0-9_-]++)
    |(?P<empty>"")
    |(?P<atom>"(?:[^"\\]++|\\.?)*+"?|\[(?:[^\]\\]++|\\.?)*+\]?|!?<[^>]*+>?)
    |(?P<count>[?*+]|\{[^}]*+\}?)
    |(?P<mark>[()|])
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_REGEX = re.compile(
    r"""(?P<skip>\(\?[:=!]|[\^$])
    |(?P<atom>\\.?|\[(?:[^\]\\]++|\\.?)*+\]?)
    |(?P<count>[?*+]|\{\s*+\d[^}]*+\})
    |(?P<mark>[()|])
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_COUNT = re.compile(r"\{\s*(\d{0,15})\s*(,?)\s*(\d{0,15})")

ROUNDS = 8
"""Passes over rules that refer to each other; without left recursion two are enough."""


class Item(NamedTuple):
    """Something that stands `least` to `most` times; `rule` or a group of choices."""

    rule: str = ""
    choices: list[list[Item]] | None = None
    empty: bool = False
    least: int = 1
    most: int = 1


class Ways(NamedTuple):
    """How many ways lead to a first character, and how many to nothing at all."""

    begin: int = 0
    skip: int = 0


def ambiguity(text: str, *, pattern: bool, most: int) -> int:
    """Return the largest number of ways that are open at one place; past `most` any."""
    return _Count(_parsed(text, _REGEX if pattern else _GBNF), most).worst()


def _marks(text: str, language: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    for found in language.finditer(text):
        kind = found.lastgroup or ""
        if kind == "skip" and found[0].startswith("(?"):
            yield "mark", "("
        elif not kind.startswith("skip"):
            yield kind, found[0]


def _parsed(text: str, language: re.Pattern[str]) -> dict[str, list[list[Item]]]:
    """Return every rule's alternatives; those of a pattern under the empty name."""
    top: list[list[Item]] = [[]]
    rules, choices = {"": top}, top
    open_groups: list[list[list[Item]]] = []
    for kind, text_ in _marks(text, language):
        if kind == "rule":
            choices, open_groups = rules.setdefault(text_, []), []
            choices.append([])
        elif kind == "count":
            _repeat(choices[-1], text_)
        elif text_ == "|" and kind == "mark":
            choices.append([])
        elif text_ == "(" and kind == "mark":
            open_groups.append(choices)
            choices = [[]]
        elif text_ == ")" and kind == "mark":
            if open_groups:
                group, choices = choices, open_groups.pop()
                choices[-1].append(Item(choices=group))
        else:
            name = text_ if kind == "name" else ""
            choices[-1].append(Item(rule=name, empty=kind == "empty"))
    return rules


def _repeat(sequence: list[Item], mark: str) -> None:
    if not sequence:
        return
    bounds = {"?": (0, 1), "*": (0, 1), "+": (1, 1)}
    if mark in bounds:
        least, most = bounds[mark]
    elif (found := _COUNT.match(mark)) is not None:
        least = int(found[1] or 0)
        most = int(found[3] or least + 1) if found[2] else least
    else:
        return
    last = sequence[-1]
    if last.most != 1 or last.least != 1:
        last = Item(choices=[[last]])
    sequence[-1] = last._replace(least=least, most=most)


@dataclass
class _Count:
    """Counts the ways of rules; numbers past `most` stay where they are."""

    rules: dict[str, list[list[Item]]]
    most: int
    known: dict[str, Ways] = field(default_factory=dict[str, Ways])
    found: int = 0

    def worst(self) -> int:
        order = self._callees_first()
        for _ in range(ROUNDS):
            before = dict(self.known)
            for name in order:
                ways = self._any_of(self.rules[name])
                self.known[name] = ways
                self.found = max(self.found, ways.begin, ways.skip)
            if self.found > self.most or before == self.known:
                break
        return self.found

    def _callees_first(self) -> list[str]:
        order: dict[str, None] = {}
        seen: set[str] = set()
        todo = [(name, False) for name in self.rules]
        while todo:
            name, done = todo.pop()
            if done:
                order[name] = None
            elif name not in seen and name in self.rules:
                seen.add(name)
                todo.append((name, True))
                todo += [(each, False) for each in _called(self.rules[name])]
        return list(order)

    def _any_of(self, choices: list[list[Item]]) -> Ways:
        begin = skip = 0
        for sequence in choices:
            ways = self._all_of(sequence)
            begin, skip = begin + ways.begin, skip + ways.skip
        return self._bounded(begin, skip)

    def _all_of(self, sequence: list[Item]) -> Ways:
        """Read from the end: what can be left out adds what begins behind it."""
        after = Ways(0, 1)
        run = 0
        for item in reversed(sequence):
            ways = self._one(item)
            after, run = self._before(ways, after, run)
            if item.least > 1 and ways.skip and ways.begin:
                for _ in range(item.least - 1):
                    after, run = self._before(ways, after, run)
                    if run > self.most:
                        break
        return after

    def _before(self, ways: Ways, after: Ways, run: int) -> tuple[Ways, int]:
        begin = ways.begin + ways.skip * after.begin
        both = self._bounded(begin, ways.skip * after.skip)
        run = run + both.begin if ways.skip else 0
        self.found = max(self.found, run, both.begin)
        return both, min(run, self.most + 1)

    def _one(self, item: Item) -> Ways:
        if item.empty:
            return Ways(0, 1)
        if item.choices is not None:
            ways = self._any_of(item.choices)
        elif item.rule:
            ways = self.known.get(item.rule, Ways())
        else:
            ways = Ways(1, 0)
        if item.least == 0:
            return self._often(ways, item.most)
        return ways

    def _often(self, ways: Ways, times: int) -> Ways:
        """Return the ways of what stands up to so many times, each within the last."""
        found = Ways(0, 1)
        for _ in range(times if ways.skip and ways.begin else min(times, 1)):
            begin = ways.begin + ways.skip * found.begin
            found = self._bounded(begin, ways.skip * found.skip + 1)
            if found.begin > self.most:
                break
        return found

    def _bounded(self, begin: int, skip: int) -> Ways:
        return Ways(min(begin, self.most + 1), min(skip, self.most + 1))


def _called(choices: list[list[Item]]) -> Iterator[str]:
    todo = [item for sequence in choices for item in sequence]
    while todo:
        item = todo.pop()
        if item.choices is not None:
            todo += [each for sequence in item.choices for each in sequence]
        elif item.rule:
            yield item.rule
