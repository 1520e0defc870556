"""Workload: tokens per byte, answer lengths, and clients that come back. Pure.

All of it is learned from answers; none of it needs a tokenizer.
"""

from __future__ import annotations

from collections import OrderedDict
from math import log

from balancer.dialects.prompt import Prompt
from balancer.prediction.regression import DecayingQuantile, DecayingRatio

TOKENS_PER_BYTE = 0.25
"""Where a model has answered nothing yet; English is near it."""

ANSWER_TOKENS = 160.0
"""The same for the length of an answer."""

KINDS = 1024
"""Most kinds of work whose answer length is remembered."""


SPANS = 10
"""Doubling spans of silence; after 512 s a conversation counts as over."""


class Lengths:
    """How many tokens some beginnings are, exactly: engines have counted them."""

    REMEMBERED = 8192
    MOST_FRAME = 50.0

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self.frame = 0.0
        """Tokens of a message beyond its bytes' share: what the template adds."""
        self._frames = 0

    def learn(self, block: bytes, tokens: float) -> None:
        """A prompt up to this block is so many tokens."""
        self._known[block] = tokens
        self._known.move_to_end(block)
        if len(self._known) > self.REMEMBERED:
            self._known.popitem(last=False)

    def at(self, block: bytes) -> float | None:
        """Tokens up to this block, where they were counted."""
        return self._known.get(block)

    def of(self, prompt: Prompt, tokens_per_byte: float) -> float:
        """Tokens of a prompt: counted as far as they were, guessed from there."""
        known, fresh, messages = self._counted(prompt)
        frames = self.frame * messages if known else 0.0
        return known + fresh * tokens_per_byte + frames

    def learn_frame(
        self, prompt: Prompt, tokens_per_byte: float, tokens: float
    ) -> None:
        """Take in that a prompt is so many tokens, before `learn` does."""
        known, fresh, messages = self._counted(prompt)
        if known and messages:
            more = (tokens - known - fresh * tokens_per_byte) / messages
            more = min(max(more, -self.MOST_FRAME), self.MOST_FRAME)
            self._frames += 1
            self.frame += max(0.05, 1 / self._frames) * (more - self.frame)

    def _counted(self, prompt: Prompt) -> tuple[float, int, int]:
        """Tokens that were counted, bytes and messages behind them."""
        for number, count in reversed(list(enumerate(prompt.messages, 1))):
            known = self._known.get(prompt.blocks[count - 1])
            if known is not None:
                fresh = prompt.size - prompt.ends[count - 1]
                return known, fresh, len(prompt.messages) - number
        return 0.0, prompt.size, len(prompt.messages)


class Workload:
    """What one model's requests turned out to be."""

    def __init__(self) -> None:
        self.ratio = DecayingRatio(TOKENS_PER_BYTE * 2000, 2000)
        self.answers = DecayingQuantile(log(ANSWER_TOKENS))
        self._kinds: OrderedDict[tuple[bytes, int], DecayingQuantile] = OrderedDict()
        self.lengths = Lengths()
        self.returns = Returns()
        self.kept = 0.7
        """Of conversations that went on, the part that found their slot as it was."""

    @property
    def tokens_per_byte(self) -> float:
        """Prompt tokens per byte of prompt."""
        return self.ratio.value

    def answer_tokens(self, head: bytes, budget: int | None) -> float:
        """How long an answer to this kind of prompt will probably be."""
        kind = self._kinds.get((head, _bucket(budget)))
        length = kind.tokens if kind is not None and kind.seen >= 3 else None
        expected = self.answers.tokens if length is None else length
        return expected if budget is None else min(expected, float(max(1, budget)))

    def chance_to_be_missed(self, silent: float) -> float:
        """Probability that somebody will come back and find it, were it kept."""
        return self.kept * self.returns.chances[min(int(silent).bit_length(), SPANS)]

    def learn_kept(self, kept: bool) -> None:
        """Take in whether a conversation that went on found its slot as it was."""
        self.kept += 0.03 * (kept - self.kept)

    def learn_prompt(self, tokens: int, size: int) -> None:
        """Take in how many tokens a prompt of `size` bytes was."""
        if size > 0 and tokens > 0:
            self.ratio.learn(tokens, size)

    def learn_answer(self, head: bytes, budget: int | None, tokens: int) -> None:
        """Take in how long an answer was that ended by itself."""
        self.answers.learn(tokens)
        key = (head, _bucket(budget))
        kind = self._kinds.pop(key, None) or DecayingQuantile(self.answers.log)
        kind.learn(tokens)
        self._kinds[key] = kind
        while len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)


def _bucket(budget: int | None) -> int:
    return 0 if budget is None else max(1, budget).bit_length()


class Returns:
    """How likely a conversation is to go on, given how long it has been silent.

    Silence is counted in doubling spans (1 s, 2 s, 4 s, …). For each span: of the
    conversations that were silent as long, which part spoke again in this span. They
    are remembered by the hash of their last prompt, wherever they were answered, so
    that a conversation whose slot was taken counts like any other.
    """

    REMEMBERED = 4096

    def __init__(self) -> None:
        # Prior: most chats go on, and within a few minutes if they do.
        self._reached = [8.0] * SPANS
        self._spoke = [1.2] * SPANS
        self.chances = [0.0] * (SPANS + 1)
        """For each span, the probability that such a conversation goes on."""
        self._silent: OrderedDict[bytes, float] = OrderedDict()
        self._recount()

    def chance(self, silent: float) -> float:
        """Probability that a conversation silent for so many seconds goes on."""
        return self.chances[_span(silent)]

    def answered(self, prompt: Prompt, now: float) -> None:
        """A prompt was answered; from now on its conversation is silent."""
        if prompt.blocks:
            self._silent[prompt.blocks[-1]] = now
        self._give_up(now)

    def asked(self, prompt: Prompt, now: float) -> bool:
        """A prompt came; the conversation that it continues, if any, has spoken."""
        for count in prompt.messages[-2:-6:-1]:
            since = self._silent.pop(prompt.blocks[count - 1], None)
            if since is not None:
                self._count(_span(now - since), True)
                return True
        return False

    def _give_up(self, now: float) -> None:
        longest = 2.0 ** (SPANS - 1)
        while self._silent:
            block, since = next(iter(self._silent.items()))
            if now - since < longest and len(self._silent) <= self.REMEMBERED:
                return
            del self._silent[block]
            self._count(_span(now - since), False)

    def _count(self, span: int, spoke: bool) -> None:
        for each in range(min(span + spoke, SPANS)):
            self._reached[each] = self._reached[each] * 0.995 + 1
            self._spoke[each] *= 0.995
        if spoke and span < SPANS:
            self._spoke[span] += 1
        self._recount()

    def _recount(self) -> None:
        silent_on = 1.0
        for span in reversed(range(SPANS)):
            silent_on *= 1 - self._spoke[span] / self._reached[span]
            self.chances[span] = 1 - silent_on


def _span(silent: float) -> int:
    return min(max(int(silent), 0).bit_length(), SPANS)
