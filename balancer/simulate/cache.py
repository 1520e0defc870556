"""Simulated prompt cache: slots and host cache, by the rules of llama.cpp.

From `server-context.cpp:get_available_slot` and `server-task.cpp:server_prompt_cache`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from balancer.dialects.prompt import Prompt, common
from balancer.telemetry.trace import Call, marks

SIMILARITY = 0.10
"""`--slot-prompt-similarity`: the share of a new prompt that a slot must hold."""

WORTH_KEEPING = 0.25
"""A host cache entry is moved into a slot only if this share stays in use."""

LOSING_MUCH = 0.5
"""A slot that would lose more than half of its content is saved first."""


@dataclass(slots=True)
class SlotContent:
    """The content of a slot or of an entry of the host cache."""

    prompt: Prompt
    marks: list[int]
    """Tokens from the start to the end of each block."""

    @property
    def tokens(self) -> int:
        """Its length."""
        return self.marks[-1] if self.marks else 0

    def shared(self, prompt: Prompt) -> int:
        """Return how many tokens at the beginning of `prompt` it has."""
        blocks = common(self.prompt, prompt)
        return self.marks[blocks - 1] if blocks else 0


def holding(call: Call) -> SlotContent:
    """Return the content of a slot that works on a call."""
    return SlotContent(call.prompt, _scaled(marks(call.prompt), 0, call.prompt_tokens))


def answered(call: Call) -> SlotContent:
    """Return its content after the answer: how a next prompt would begin."""
    prompt, reply = call.prompt, call.reply
    whole = Prompt(
        prompt.blocks + reply.blocks,
        prompt.ends + reply.ends,
        (*prompt.messages, len(prompt.blocks) + len(reply.blocks)),
    )
    reading = _scaled(marks(prompt), 0, call.prompt_tokens)
    writing = marks(reply, prompt.size)
    return SlotContent(
        whole if reply.blocks else prompt,
        reading + _scaled(writing, call.prompt_tokens, call.answer_tokens),
    )


def _scaled(found: list[float], start: int, total: int) -> list[int]:
    factor = total / found[-1] if found else 0.0
    return [start + round(mark * factor) for mark in found]


@dataclass(slots=True)
class Place:
    """One slot."""

    content: SlotContent | None = None
    busy: bool = False
    used: float = -1.0


@dataclass(slots=True)
class Cache:
    """The slots of one engine and its host cache, if it has one."""

    slots: list[Place]
    host_tokens: int = 0
    host: list[SlotContent] = field(default_factory=list[SlotContent])

    def take(
        self, new: SlotContent, now: float, pinned: int | None = None
    ) -> tuple[int, int]:
        """Choose an idle slot for a prompt; return it and the tokens that it saves.

        Raises LookupError when no slot is idle.
        """
        index, similar = (pinned, 0.0) if pinned is not None else self._similar(new)
        if index is None:
            index = self._least_recently_used()
        slot = self.slots[index]
        if self.host_tokens and (similar == 0.0 or self._loses_much(slot, new)):
            self._swap(slot, new)
        spared = slot.content.shared(new.prompt) if slot.content else 0
        slot.content, slot.busy, slot.used = new, True, now
        # At least one token is always read, to sample from.
        return index, min(spared, new.tokens - 1)

    def release(self, index: int, content: SlotContent, now: float) -> None:
        """Free a slot that has answered; it holds the prompt and the answer."""
        slot = self.slots[index]
        slot.content, slot.busy, slot.used = content, False, now

    def _similar(self, new: SlotContent) -> tuple[int | None, float]:
        best, similar = None, SIMILARITY
        for index, slot in enumerate(self.slots):
            if slot.busy or slot.content is None:
                continue
            share = slot.content.shared(new.prompt) / max(new.tokens, 1)
            if share > similar:
                best, similar = index, share
        return best, similar if best is not None else 0.0

    def _least_recently_used(self) -> int:
        idle = [index for index, slot in enumerate(self.slots) if not slot.busy]
        if not idle:
            raise LookupError("no idle slot")
        return min(idle, key=lambda index: self.slots[index].used)

    def _loses_much(self, slot: Place, new: SlotContent) -> bool:
        if slot.content is None:
            return False
        return slot.content.shared(new.prompt) < LOSING_MUCH * slot.content.tokens

    def _swap(self, slot: Place, new: SlotContent) -> None:
        """Save the content of the slot; take the best entry out of the host cache."""
        if slot.content is not None:
            self._save(slot.content)
        kept = slot.content.shared(new.prompt) if slot.content else 0
        keeps = kept / slot.content.tokens if slot.content else -1.0
        best: SlotContent | None = None
        for entry in self.host:
            shared = entry.shared(new.prompt)
            share = shared / max(1, entry.tokens)
            if share >= WORTH_KEEPING and share > keeps and shared > kept:
                best, keeps, kept = entry, share, shared
        if best is not None:
            self.host.remove(best)
            slot.content = best
        while sum(entry.tokens for entry in self.host) > self.host_tokens:
            self.host.pop(0)

    def _save(self, content: SlotContent) -> None:
        whole = len(content.prompt.blocks)
        if any(common(entry.prompt, content.prompt) == whole for entry in self.host):
            return
        self.host = [
            entry
            for entry in self.host
            if common(entry.prompt, content.prompt) < len(entry.prompt.blocks)
        ]
        self.host.append(content)
