"""Prefix cache index: which slot holds which beginning of a prompt. Pure.

llama.cpp's cache is exclusive: a slot holds one text, and while it works no other
request can use it. So this is not a tree of what an engine has seen, but a list of what
each slot holds now. Every slot of the fleet has a place, one bit of a number; for each
block of a prompt such a number says which slots hold it, so that looking up a few
blocks finds all of them at once.

Beside the slots there is llama.cpp's host cache (`--cache-ram`). It saves what a slot
loses and drops its oldest entry. It moves an entry back into a slot where a prompt
needs it, but only where at least a quarter of the entry stays in use.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from balancer.dialects.prompt import Prompt, common, reach
from balancer.prediction.large.changes import ChangeLog
from balancer.prediction.speed import parameters
from edgeserve.wire import EngineReport

LONG_AGO = -1e9

SENT_BACK = 0.6
"""The part of an answer that must be sent back for it to count as the same text."""


class CachedPrefix(msgspec.Struct):
    """What one slot holds: a prompt and, once it has answered, the answer.

    `tokens` is its whole length, `answer` the part that was generated. `used` is when
    the slot last worked; `since` when its conversation paused, `LONG_AGO` where it has
    continued elsewhere. `client` is whose conversation it is.
    """

    prompt: Prompt
    tokens: float
    answer: float = 0.0
    since: float = 0.0
    used: float = 0.0
    client: str = ""

    @property
    def tokens_per_byte(self) -> float:
        """How many tokens a byte of this text has."""
        return (self.tokens - self.answer) / (self.prompt.size or 1)

    def shared(self, depth: int, prompt: Prompt) -> float:
        """Return the tokens saved for a prompt that shares `depth` blocks.

        After an answered prompt its answer follows, as the client sends it back. It
        counts unless it came back much shorter, for example without the reasoning.
        """
        ratio = self.tokens_per_byte
        if depth < len(self.prompt.blocks):
            return self.prompt.ends[depth - 1] * ratio
        sent_back = ratio * (reach(prompt, depth) - self.prompt.size)
        features_of = self.tokens - self.answer
        return self.tokens if sent_back > SENT_BACK * self.answer else features_of


Level = tuple[int, int]
"""Blocks in common, and the slots that have exactly so many."""


class PrefixCacheIndex:
    """The slots of the fleet as bits, and what they hold."""

    def __init__(self) -> None:
        self.contents: list[CachedPrefix | None] = []
        self.idle = 0
        """Bits of the slots that are not at work."""
        self.disposable = 0
        """Bits of the slots whose content is of no further use."""
        self._holders: dict[bytes, int] = {}
        self._ending: dict[bytes, int] = {}
        """Slots by the last block of what they hold."""
        self._free: list[int] = []
        self.owners: dict[int, object] = {}
        """Whose slot each place is: an `EngineModel`."""
        self.log = ChangeLog()

    def add(self, slots: int) -> list[int]:
        """Give places to the slots of an engine; return them."""
        while len(self._free) < slots:
            self._free.append(len(self.contents))
            self.contents.append(None)
        self._free.sort(reverse=True)
        places = [self._free.pop() for _ in range(slots)]
        for place in places:
            self.release(place)
            self.disposable |= 1 << place
        return places

    def remove(self, places: list[int]) -> None:
        """Take back the places of an engine that left."""
        for place in places:
            self.forget(place)
            self.occupy(place)
            self.disposable &= ~(1 << place)
            self.log.forget(self.owners.pop(place, None))
        self._free.extend(places)

    def occupy(self, place: int) -> None:
        """Mark a slot as busy."""
        self.idle &= ~(1 << place)
        self.log.note(self.owners.get(place))

    def release(self, place: int) -> None:
        """Mark a slot as idle."""
        self.idle |= 1 << place
        self.log.note(self.owners.get(place))

    def forget(self, place: int) -> None:
        """Forget the content of a slot."""
        content = self.contents[place]
        if content is not None:
            self._unmark(place, content.prompt.blocks, 0)
        self.contents[place] = None
        self.disposable |= 1 << place
        self.log.note(self.owners.get(place))

    def put(self, place: int, content: CachedPrefix) -> None:
        """Replace the content of a slot."""
        before = self.contents[place]
        old = before.prompt.blocks if before is not None else ()
        new = content.prompt.blocks
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
        self.contents[place] = content
        self.disposable &= ~bit
        self.log.note(self.owners.get(place))

    def _unmark(self, place: int, blocks: tuple[bytes, ...], kept: int) -> None:
        others = ~(1 << place)
        for block in blocks[kept:]:
            _clear(self._holders, block, others)
        if blocks:
            _clear(self._ending, blocks[-1], others)

    def beginnings(self, prompt: Prompt) -> int:
        """Return the slots whose whole text is a beginning of this prompt."""
        blocks, get, found = prompt.blocks, self._ending.get, 0
        for count in prompt.messages:
            found |= get(blocks[count - 1], 0)
        return found

    def supersede(self, prompt: Prompt) -> None:
        """Mark earlier states of a conversation, in idle slots, as disposable."""
        left = self.beginnings(prompt) & self.idle & ~self.disposable
        self.disposable |= left
        while left:
            place = (left & -left).bit_length() - 1
            left &= left - 1
            content = self.contents[place]
            if content is not None:
                content.since = LONG_AGO
                self.log.note(self.owners.get(place))

    def levels(self, prompt: Prompt) -> list[Level]:
        """Return which slots share how much of a prompt, the largest share first."""
        blocks, get = prompt.blocks, self._holders.get
        found: list[Level] = []
        depth, last = 0, len(blocks)
        mask = get(blocks[0], 0) if blocks else 0
        while mask:
            # Along a chain the set of holders only shrinks: bisect for the change.
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
    """The host cache of one engine, the oldest entry first; `tokens` is its size."""

    cache_index: PrefixCacheIndex
    tokens: float
    entries: list[CachedPrefix] = field(default_factory=list[CachedPrefix])

    def swap(self, place: int, prompt: Prompt, tokens: float) -> None:
        """Before a slot takes a prompt, save its content and move the best entry in."""
        content = self.cache_index.contents[place]
        if content is not None:
            if self._stays(content, prompt, tokens):
                return
            self._save(content)
        best = self.best(prompt, content)
        if best is not None:
            self.entries.remove(best)
        while sum(each.tokens for each in self.entries) > self.tokens:
            self.entries.pop(0)

    def _stays(self, content: CachedPrefix, prompt: Prompt, tokens: float) -> bool:
        """Whether the slot was chosen for its content, and keeps most of it."""
        shared = _shared(content, prompt)
        return shared > SIMILARITY * tokens and shared >= LOSING_MUCH * content.tokens

    def best(self, prompt: Prompt, content: CachedPrefix | None) -> CachedPrefix | None:
        """Return the entry that would be moved into a slot with this content."""
        shared = _shared(content, prompt) if content is not None else 0.0
        kept = shared / max(content.tokens, 1.0) if content is not None else -1.0
        best: CachedPrefix | None = None
        for entry in self.entries:
            found = _shared(entry, prompt)
            share = found / max(entry.tokens, 1.0)
            if share >= WORTH_KEEPING and share > kept and found > shared:
                best, shared, kept = entry, found, share
        return best

    def spares(
        self, prompt: Prompt, content: CachedPrefix | None, tokens: float
    ) -> float:
        """Return the tokens that the best entry saves, where it would be used."""
        if content is not None and self._stays(content, prompt, tokens):
            return 0.0
        best = self.best(prompt, content)
        return _shared(best, prompt) if best is not None else 0.0

    def clear(self) -> None:
        """Drop everything: the engine restarted."""
        self.entries.clear()

    def _save(self, content: CachedPrefix) -> None:
        blocks = content.prompt.blocks
        if any(
            common(each.prompt, content.prompt) == len(blocks) for each in self.entries
        ):
            return
        self.entries = [
            each
            for each in self.entries
            if common(each.prompt, content.prompt) < len(each.prompt.blocks)
        ]
        # The slot's content is about to be replaced or extended: keep a copy.
        self.entries.append(msgspec.structs.replace(content))


def _shared(content: CachedPrefix, prompt: Prompt) -> float:
    depth = common(content.prompt, prompt)
    return content.shared(depth, prompt) if depth else 0.0


MIB = 2**20


def host_cache(engine: EngineReport, cache_index: PrefixCacheIndex) -> HostCache | None:
    """Return the host cache of an engine that has one."""
    size = engine.launch.cache_ram_mib * MIB
    if not size:
        return None
    # Models differ tenfold; this is near for models of Pi size to laptop size.
    per_token = 16 * 1024 * (1 + parameters(engine.variant))
    return HostCache(cache_index, size / per_token)
