"""llama.cpp's host cache (`--cache-ram`), as the balancer believes it to be. Pure.

What a slot loses is saved, the oldest entry making room; what a prompt needs is moved
back into a slot, but only where at least a quarter of the entry stays in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from balancer.holdings import Held, Holdings
from balancer.prefix import Prompt, common

SIMILARITY = 0.10
"""`--slot-prompt-similarity`: what a slot must hold for llama.cpp to prefer it."""

WORTH_KEEPING = 0.25
LOSING_MUCH = 0.5
"""A slot that would lose more than half of its content is saved first."""


@dataclass(slots=True)
class HostCache:
    """The entries of one engine, oldest first. `tokens` is how many fit."""

    holdings: Holdings
    tokens: float
    entries: list[Held] = field(default_factory=list[Held])

    def swap(self, place: int, prompt: Prompt, tokens: float) -> None:
        """A slot is about to take a prompt: save what it holds, use what helps."""
        held = self.holdings.held[place]
        if held is not None:
            if self._stays(held, prompt, tokens):
                return
            self._save(held)
        best = self.best(prompt, held)
        if best is not None:
            self.entries.remove(best)
        while sum(each.tokens for each in self.entries) > self.tokens:
            self.entries.pop(0)

    def _stays(self, held: Held, prompt: Prompt, tokens: float) -> bool:
        """Whether the slot was taken for what it holds, and keeps most of that."""
        shared = _shared(held, prompt)
        return shared > SIMILARITY * tokens and shared >= LOSING_MUCH * held.tokens

    def best(self, prompt: Prompt, held: Held | None) -> Held | None:
        """The entry that would be moved into a slot that holds `held`."""
        shared = _shared(held, prompt) if held is not None else 0.0
        kept = shared / max(held.tokens, 1.0) if held is not None else -1.0
        best: Held | None = None
        for entry in self.entries:
            found = _shared(entry, prompt)
            share = found / max(entry.tokens, 1.0)
            if share >= WORTH_KEEPING and share > kept and found > shared:
                best, shared, kept = entry, found, share
        return best

    def spares(self, prompt: Prompt, held: Held | None, tokens: float) -> float:
        """Tokens that the best entry holds of a prompt, where it would be used."""
        if held is not None and self._stays(held, prompt, tokens):
            return 0.0
        best = self.best(prompt, held)
        return _shared(best, prompt) if best is not None else 0.0

    def clear(self) -> None:
        """The engine started anew."""
        self.entries.clear()

    def _save(self, held: Held) -> None:
        blocks = held.prompt.blocks
        if any(
            common(each.prompt, held.prompt) == len(blocks) for each in self.entries
        ):
            return
        self.entries = [
            each
            for each in self.entries
            if common(each.prompt, held.prompt) < len(each.prompt.blocks)
        ]
        # The slot's own record is about to be replaced, or extended: keep a copy.
        self.entries.append(msgspec.structs.replace(held))


def _shared(held: Held, prompt: Prompt) -> float:
    depth = common(held.prompt, prompt)
    return held.shared(depth, prompt) if depth else 0.0
