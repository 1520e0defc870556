"""Learned speeds by what they belong to, and how they are stored. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from balancer.learner import Learned, Learner
from balancer.speed import Speed


class Book:
    """Learned speeds by what they belong to; outlives engines and restarts."""

    def __init__(self, learned: Mapping[str, Learned] | None = None) -> None:
        self._learned = dict(learned or {})
        self._learners: dict[str, Learner] = {}

    def learner(self, key: Key, guess: Speed) -> Learner:
        """The learner of an engine; it begins with what was learned before, if any."""
        name = key.name
        if name not in self._learners:
            learner = Learner(guess)
            if name in self._learned:
                learner.load(self._learned[name])
            self._learners[name] = learner
        return self._learners[name]

    def dump(self) -> bytes:
        """Everything learned, as JSON."""
        now = {n: each.dump() for n, each in self._learners.items() if each.samples}
        return msgspec.json.encode({**self._learned, **now})

    def load(self, body: bytes) -> None:
        """Go on from what `dump` wrote; anything else is passed over.

        Best before any engine has joined.
        """
        try:
            self._learned = msgspec.json.decode(body, type=dict[str, Learned])
        except msgspec.DecodeError:
            return


class Key(msgspec.Struct, frozen=True, order=True):
    """What a learned speed belongs to; when one of these changes it is learned anew."""

    node: str
    build: str
    variant: str
    launch: str

    @property
    def name(self) -> str:
        """The same as one word."""
        return " ".join((self.node, self.build, self.variant, self.launch))
