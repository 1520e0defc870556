"""Prefix cache index: which slot holds which beginning of a prompt. Pure.

llama.cpp's cache is exclusive: a slot holds one text, and while it works nobody else
can use it. So this is not a tree of what an engine has seen, but a list of what each
slot holds now. Every slot of the fleet is one bit; for each block of prompt a number
says which slots hold it, so that a look at a few blocks finds all of them at once.

Beside the slots there is llama.cpp's host cache (`--cache-ram`). What a slot loses is
saved there, and the oldest entry makes room. What a prompt needs is moved back into a
slot, but only where at least a quarter of the entry stays in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from balancer.dialects.prompt import Prompt, common, reach

LONG_AGO = -1e9

SENT_BACK = 0.6
"""The part of an answer that must be there for it to be the same text."""


class CachedPrefix(msgspec.Struct):
    """What one slot holds: a prompt and, once it has answered, the answer.

    `tokens` is all of it, `answer` the part that was generated. `used` is when it was
    last at work; `since` when its conversation fell silent, long ago where that has
    gone on elsewhere.
    """

    prompt: Prompt
    tokens: float
    answer: float = 0.0
    since: float = 0.0
    used: float = 0.0

    @property
    def tokens_per_byte(self) -> float:
        """How this text turns into tokens."""
        return (self.tokens - self.answer) / max(1, self.prompt.size)

    def shared(self, depth: int, prompt: Prompt) -> float:
        """Tokens spared to a prompt that has `depth` blocks in common with this.

        What follows an answered prompt is its answer, sent back; it counts unless what
        came back is much shorter: then the client left out the reasoning, say.
        """
        ratio = self.tokens_per_byte
        if depth < len(self.prompt.blocks):
            return self.prompt.ends[depth - 1] * ratio
        sent_back = ratio * (reach(prompt, depth) - self.prompt.size)
        asked = self.tokens - self.answer
        return self.tokens if sent_back > SENT_BACK * self.answer else asked


Level = tuple[int, int]
"""Blocks in common, and the slots that have exactly so many."""


class PrefixCacheIndex:
    """The fleet's slots as bits, and what they hold."""

    def __init__(self) -> None:
        self.held: list[CachedPrefix | None] = []
        self.idle = 0
        """Bits of the slots that are not at work."""
        self.bare = 0
        """Bits of the slots that hold nothing anybody will come back for."""
        self._holders: dict[bytes, int] = {}
        self._ending: dict[bytes, int] = {}
        """Slots by the last block of what they hold."""
        self._free: list[int] = []

    def add(self, slots: int) -> list[int]:
        """Make room for an engine's slots; return their bits' positions."""
        while len(self._free) < slots:
            self._free.append(len(self.held))
            self.held.append(None)
        self._free.sort(reverse=True)
        places = [self._free.pop() for _ in range(slots)]
        for place in places:
            self.release(place)
            self.bare |= 1 << place
        return places

    def remove(self, places: list[int]) -> None:
        """An engine left."""
        for place in places:
            self.forget(place)
            self.occupy(place)
            self.bare &= ~(1 << place)
        self._free.extend(places)

    def occupy(self, place: int) -> None:
        """The slot is at work."""
        self.idle &= ~(1 << place)

    def release(self, place: int) -> None:
        """The slot is idle."""
        self.idle |= 1 << place

    def forget(self, place: int) -> None:
        """What the slot held is lost."""
        held = self.held[place]
        if held is not None:
            self._unmark(place, held.prompt.blocks, 0)
        self.held[place] = None
        self.bare |= 1 << place

    def put(self, place: int, held: CachedPrefix) -> None:
        """The slot now holds this instead of what it held."""
        before = self.held[place]
        old = before.prompt.blocks if before is not None else ()
        new = held.prompt.blocks
        kept = 0
        for left, right in zip(old, new, strict=False):
            if left != right:
                break
            kept += 1
        self._unmark(place, old, kept)
        bit, holders = 1 << place, self._holders
        for block in new[kept:]:
            holders[block] = holders.get(block, 0) | bit
        if new:
            self._ending[new[-1]] = self._ending.get(new[-1], 0) | bit
        self.held[place] = held
        self.bare &= ~bit

    def _unmark(self, place: int, blocks: tuple[bytes, ...], kept: int) -> None:
        others = ~(1 << place)
        for block in blocks[kept:]:
            _clear(self._holders, block, others)
        if blocks:
            _clear(self._ending, blocks[-1], others)

    def beginnings(self, prompt: Prompt) -> int:
        """Slots whose whole text is a beginning of this prompt, or all of it."""
        blocks, get, found = prompt.blocks, self._ending.get, 0
        for count in prompt.messages:
            found |= get(blocks[count - 1], 0)
        return found

    def supersede(self, prompt: Prompt) -> None:
        """A conversation goes on: what it was, in slots at rest, is of no more use."""
        left = self.beginnings(prompt) & self.idle & ~self.bare
        self.bare |= left
        while left:
            held = self.held[(left & -left).bit_length() - 1]
            left &= left - 1
            if held is not None:
                held.since = LONG_AGO

    def levels(self, prompt: Prompt) -> list[Level]:
        """Which slots share how much of a prompt, those that share most first."""
        blocks, get = prompt.blocks, self._holders.get
        found: list[Level] = []
        depth, last = 0, len(blocks)
        mask = get(blocks[0], 0) if blocks else 0
        while mask:
            # Along a chain the set of holders only shrinks: bisect for where it does.
            low, high = depth, last
            while high - low > 1:
                middle = (low + high) // 2
                if get(blocks[middle], 0) == mask:
                    low = middle
                else:
                    high = middle
            depth = low + 1
            smaller = get(blocks[depth], 0) if depth < last else 0
            found.append((depth, mask & ~smaller))
            mask = smaller
        found.reverse()
        return found


def _clear(masks: dict[bytes, int], block: bytes, others: int) -> None:
    left = masks[block] & others
    if left:
        masks[block] = left
    else:
        del masks[block]


SIMILARITY = 0.10
"""`--slot-prompt-similarity`: what a slot must hold for llama.cpp to prefer it."""

WORTH_KEEPING = 0.25
LOSING_MUCH = 0.5
"""A slot that would lose more than half of its content is saved first."""


@dataclass(slots=True)
class HostCache:
    """The entries of one engine, oldest first. `tokens` is how many fit."""

    holdings: PrefixCacheIndex
    tokens: float
    entries: list[CachedPrefix] = field(default_factory=list[CachedPrefix])

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

    def _stays(self, held: CachedPrefix, prompt: Prompt, tokens: float) -> bool:
        """Whether the slot was taken for what it holds, and keeps most of that."""
        shared = _shared(held, prompt)
        return shared > SIMILARITY * tokens and shared >= LOSING_MUCH * held.tokens

    def best(self, prompt: Prompt, held: CachedPrefix | None) -> CachedPrefix | None:
        """The entry that would be moved into a slot that holds `held`."""
        shared = _shared(held, prompt) if held is not None else 0.0
        kept = shared / max(held.tokens, 1.0) if held is not None else -1.0
        best: CachedPrefix | None = None
        for entry in self.entries:
            found = _shared(entry, prompt)
            share = found / max(entry.tokens, 1.0)
            if share >= WORTH_KEEPING and share > kept and found > shared:
                best, shared, kept = entry, found, share
        return best

    def spares(self, prompt: Prompt, held: CachedPrefix | None, tokens: float) -> float:
        """Tokens that the best entry holds of a prompt, where it would be used."""
        if held is not None and self._stays(held, prompt, tokens):
            return 0.0
        best = self.best(prompt, held)
        return _shared(best, prompt) if best is not None else 0.0

    def clear(self) -> None:
        """The engine started anew."""
        self.entries.clear()

    def _save(self, held: CachedPrefix) -> None:
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


def _shared(held: CachedPrefix, prompt: Prompt) -> float:
    depth = common(held.prompt, prompt)
    return held.shared(depth, prompt) if depth else 0.0
