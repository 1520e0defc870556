"""Workload: tokens per byte, answer lengths, and returning conversations. Pure.

All of it is learned from answers, without a tokenizer.
"""

from __future__ import annotations

from collections import OrderedDict
from math import inf, log

from balancer.dialects.prompt import Prompt
from balancer.prediction.regression import DecayingQuantile, DecayingRatio
from balancer.prediction.returns.conversations import FRESH, Chances, Returns

TOKENS_PER_BYTE = 0.25
"""Before a model's first answer; English is near it."""

ANSWER_TOKENS = 160.0
"""The expected length of an answer before the first one."""

KINDS = 1024
"""Most kinds of requests whose answer length is remembered."""


class Lengths:
    """The exact lengths in tokens of prompt beginnings that engines have counted."""

    REMEMBERED = 8192
    MOST_FRAME = 50.0

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self.frame = 0.0
        """Tokens that the chat template adds to each message."""
        self._frames = 0

    def learn(self, block: bytes, tokens: float) -> None:
        """Note that a prompt up to this block has so many tokens."""
        self._known[block] = tokens
        self._known.move_to_end(block)
        if len(self._known) > self.REMEMBERED:
            self._known.popitem(last=False)

    def at(self, block: bytes) -> float | None:
        """Return the tokens up to this block, where they were counted."""
        return self._known.get(block)

    def of(self, prompt: Prompt, tokens_per_byte: float) -> float:
        """Return the tokens of a prompt: counted where known, then estimated."""
        known, fresh, messages = self._counted(prompt)
        frames = self.frame * messages if known else 0.0
        return known + fresh * tokens_per_byte + frames

    def learn_frame(
        self, prompt: Prompt, tokens_per_byte: float, tokens: float
    ) -> None:
        """Learn the frame from the length of a prompt; call it before `learn`."""
        known, fresh, messages = self._counted(prompt)
        if known and messages:
            more = (tokens - known - fresh * tokens_per_byte) / messages
            more = min(max(more, -self.MOST_FRAME), self.MOST_FRAME)
            self._frames += 1
            self.frame += max(0.05, 1 / self._frames) * (more - self.frame)

    def _counted(self, prompt: Prompt) -> tuple[float, int, int]:
        """Return the counted tokens, and the bytes and messages after them."""
        blocks, after = prompt.blocks, 0
        for count in reversed(prompt.messages):
            known = self._known.get(blocks[count - 1])
            if known is not None:
                return known, prompt.size - prompt.ends[count - 1], after
            after += 1
        return 0.0, prompt.size, after


class Workload:
    """What the requests for one model are like."""

    def __init__(self) -> None:
        self.ratio = DecayingRatio(TOKENS_PER_BYTE * 2000, 2000)
        self.answers = DecayingQuantile(log(ANSWER_TOKENS))
        self._kinds: OrderedDict[tuple[bytes, int], DecayingQuantile] = OrderedDict()
        self.lengths = Lengths()
        self.returns = Returns()
        self.kept = 0.7
        """The share of continued conversations that found their slot unchanged."""
        self._chances = Chances(self.returns, self.kept, -inf)

    @property
    def tokens_per_byte(self) -> float:
        """Prompt tokens per byte of prompt."""
        return self.ratio.value

    def answer_tokens(self, head: bytes, budget: int | None) -> float:
        """Return the expected length of an answer to this kind of prompt."""
        kind = self._kinds.get((head, _bucket(budget)))
        length = kind.tokens if kind is not None and kind.seen >= 3 else None
        expected = self.answers.tokens if length is None else length
        return expected if budget is None else min(expected, float(max(1, budget)))

    def chances(self, now: float) -> Chances:
        """Return the chances to be missed; they are renewed every few seconds."""
        if not self._chances.until - FRESH <= now < self._chances.until:
            self._chances = Chances(self.returns, self.kept, now + FRESH)
        return self._chances

    def learn_kept(self, kept: bool) -> None:
        """Learn whether a continued conversation found its slot unchanged."""
        self.kept += 0.03 * (kept - self.kept)

    def learn_prompt(self, tokens: int, size: int) -> None:
        """Learn how many tokens a prompt of `size` bytes has."""
        if size > 0 and tokens > 0:
            self.ratio.learn(tokens, size)

    def learn_answer(self, head: bytes, budget: int | None, tokens: int) -> None:
        """Learn the length of an answer that ended by itself."""
        self.answers.learn(tokens)
        key = (head, _bucket(budget))
        kind = self._kinds.pop(key, None) or DecayingQuantile(self.answers.log)
        kind.learn(tokens)
        self._kinds[key] = kind
        while len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)


def _bucket(budget: int | None) -> int:
    return 0 if budget is None else max(1, budget).bit_length()
