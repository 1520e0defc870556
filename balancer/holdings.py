"""Which slot of which engine probably holds which beginning of a prompt. Pure.

llama.cpp's cache is exclusive: a slot holds one text, and while it works nobody else
can use it. So this is not a tree of what an engine has seen, but a list of what each
slot holds now. Every slot of the fleet is one bit; for each block of prompt a number
says which slots hold it, so that a look at a few blocks finds all of them at once.
"""

from __future__ import annotations

import msgspec

from balancer.prefix import Prompt, reach

LONG_AGO = -1e9

SENT_BACK = 0.6
"""The part of an answer that must be there for it to be the same text."""


class Held(msgspec.Struct):
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


class Holdings:
    """The fleet's slots as bits, and what they hold."""

    def __init__(self) -> None:
        self.held: list[Held | None] = []
        self.owner: list[str] = []
        """Name of the engine that each slot belongs to."""
        self.idle = 0
        """Bits of the slots that are not at work."""
        self.bare = 0
        """Bits of the slots that hold nothing anybody will come back for."""
        self._holders: dict[bytes, int] = {}
        self._ending: dict[bytes, int] = {}
        """Slots by the last block of what they hold."""
        self._free: list[int] = []

    def add(self, slots: int, owner: str) -> list[int]:
        """Make room for an engine's slots; return their bits' positions."""
        while len(self._free) < slots:
            self._free.append(len(self.held))
            self.held.append(None)
            self.owner.append("")
        self._free.sort(reverse=True)
        places = [self._free.pop() for _ in range(slots)]
        for place in places:
            self.idle |= 1 << place
            self.bare |= 1 << place
            self.owner[place] = owner
        return places

    def remove(self, places: list[int]) -> None:
        """An engine left."""
        for place in places:
            self.forget(place)
            self.idle &= ~(1 << place)
            self.bare &= ~(1 << place)
        self._free.extend(places)

    def forget(self, place: int) -> None:
        """What the slot held is lost."""
        held = self.held[place]
        if held is not None:
            self._unmark(place, held.prompt.blocks, 0)
        self.held[place] = None
        self.bare |= 1 << place

    def put(self, place: int, held: Held) -> None:
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
