"""Workload: tokens per byte, answer lengths, and returning conversations. Pure.

All of it is learned from answers, without a tokenizer. Pauses are counted in doubling
spans (up to 1 s, 2 s, 4 s, …), for all conversations of a model and for those of each
client: an agent goes on at once, a person after a while.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Sequence
from math import inf, log

from balancer.dialects.prompt import Prompt
from balancer.prediction.regression import DecayingQuantile, DecayingRatio

TOKENS_PER_BYTE = 0.25
"""Before a model's first answer; English is near it."""

ANSWER_TOKENS = 160.0
"""The expected length of an answer before the first one."""

KINDS = 1024
"""Most kinds of requests whose answer length is remembered."""

SPANS = 10
"""After 512 s a conversation counts as over."""

ENDS = tuple(2.0**span for span in range(SPANS))
"""The seconds at which each span ends."""

FADE = 0.995

PRIOR = 8.0
"""How many counts the first guess is worth."""

LIKELY = (0.05, 0.05) + (0.15,) * (SPANS - 2)
"""The first guess: most chats continue, few at once and most within some minutes."""

CLIENTS = 1024
"""Most clients whose pauses are remembered."""

FRESH = 5.0
"""Seconds for which the chances to be missed stay as they were computed."""


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


class Chances:
    """The chances that contents are missed, as they were learned at one moment.

    Until `until` they stay the same, so that what follows from them can be kept.
    """

    def __init__(self, returns: Returns, kept: float, until: float) -> None:
        self.until = until
        self._returns = returns
        self._kept = kept
        self._all = self._times_kept(returns.all)
        self.by_client: dict[str, Sequence[float]] = {}
        """By the span of the pause, for the clients asked for so far."""

    def of(self, client: str) -> Sequence[float]:
        """Probability that a client's content is needed again and found, if kept."""
        found = self.by_client.get(client)
        if found is None:
            pauses = self._returns.of(client)
            own = pauses is not self._returns.all
            found = self._times_kept(pauses) if own else self._all
            self.by_client[client] = found
        return found

    def _times_kept(self, pauses: Pauses) -> Sequence[float]:
        return [self._kept * chance for chance in pauses.chances]

    def to_be_missed(self, client: str, paused: float) -> float:
        """Return that probability after a pause of so many seconds."""
        return self.of(client)[bisect_right(ENDS, paused)]


def _bucket(budget: int | None) -> int:
    return 0 if budget is None else max(1, budget).bit_length()


class Pauses:
    """For each span: how many pauses reached it, and how many ended in it.

    Their ratio is the hazard of the product-limit estimate (Kaplan and Meier 1958), so
    that pauses which have not ended yet count as far as they have come.
    """

    def __init__(self, like: Pauses | None = None) -> None:
        self.reached = [PRIOR] * SPANS
        self.ended = [PRIOR * share for share in LIKELY]
        if like is not None:
            pairs = zip(like.ended, like.reached, strict=True)
            self.ended = [PRIOR * ended / reached for ended, reached in pairs]
        self._chances: list[float] | None = None

    def count(self, span: int, *, ended: bool) -> None:
        """Count a pause that ended in a span, or went on beyond it."""
        self.reached[span] = self.reached[span] * FADE + 1
        self.ended[span] = self.ended[span] * FADE + ended
        self._chances = None

    @property
    def chances(self) -> Sequence[float]:
        """Probability that a conversation continues, by the span of its pause."""
        if self._chances is None:
            self._chances = _chances(self.reached, self.ended)
        return self._chances

    def chance(self, paused: float) -> float:
        """Probability that a conversation continues after so many seconds of pause."""
        return self.chances[bisect_right(ENDS, paused)]

    def gain(self, paused: float, saved: float, idle: float) -> float:
        """Return the seconds of work that are saved by waiting for a return, at best.

        A return saves `saved` seconds; each second until then costs `idle` of them. Of
        the ends of the spans, the best time to give up counts.
        """
        best = gain = 0.0
        still, begin = 1.0, max(paused, 0.0)
        for span in range(_span(paused), SPANS):
            if idle * (begin - paused) > saved:
                break
            end = 2.0**span
            # Within a span the pause is equally likely to end at any time.
            part = (end - begin) / (end / 2 if span else end)
            ends = self.ended[span] / self.reached[span] * part
            gain += still * (ends * saved - (1 - ends / 2) * idle * (end - begin))
            best = max(best, gain)
            still *= 1 - ends
            begin = end
        return best


def _chances(reached: list[float], ended: list[float]) -> list[float]:
    none_ended, found = 1.0, [0.0] * (SPANS + 1)
    for span in reversed(range(SPANS)):
        none_ended *= 1 - ended[span] / reached[span]
        found[span] = 1 - none_ended
    return found


def _span(paused: float) -> int:
    return bisect_right(ENDS, paused)


class Returns:
    """The pauses of one model's conversations.

    A conversation is remembered by the hash of its last prompt, on any engine, so that
    one whose slot was taken counts like any other.
    """

    REMEMBERED = 4096

    def __init__(self) -> None:
        self.all = Pauses()
        self._clients: OrderedDict[str, Pauses] = OrderedDict()
        self._since: dict[bytes, tuple[float, str, float]] = {}
        self._spans = [deque[tuple[bytes, float]]() for _ in range(SPANS)]
        """The pauses that have reached each span and not gone beyond it."""

    def of(self, client: str) -> Pauses:
        """Return the pauses of a client, or of all where it has had none."""
        return self._clients.get(client) or self.all

    def answered(
        self, prompt: Prompt, client: str, now: float, waited: float = 0.0
    ) -> None:
        """Note that a prompt was answered; its conversation pauses from now on.

        `waited`: seconds that it has waited for its answers so far.
        """
        if prompt.blocks:
            self._since[prompt.blocks[-1]] = now, client, waited
            self._spans[0].append((prompt.blocks[-1], now))
        self._pass(now)

    def arrived(self, prompt: Prompt, now: float) -> float | None:
        """Note a new prompt; return what its conversation has waited, if it goes on."""
        self._pass(now)
        for count in prompt.messages[-2:-6:-1]:
            found = self._since.pop(prompt.blocks[count - 1], None)
            if found is not None:
                since, client, waited = found
                self._count(client, _span(now - since), ended=True)
                return waited
        return None

    def _pass(self, now: float) -> None:
        """Move on the pauses that have lasted longer than their span."""
        for span, pauses in enumerate(self._spans):
            while pauses and pauses[0][1] <= now - 2.0**span:
                self._leave(span, pauses, over=span + 1 == SPANS)
        while len(self._since) > self.REMEMBERED:
            span = max(number for number, each in enumerate(self._spans) if each)
            self._leave(span, self._spans[span], over=True)

    def _leave(
        self, span: int, pauses: deque[tuple[bytes, float]], *, over: bool
    ) -> None:
        """Take the oldest pause out of its span; `over`: it is not expected to end."""
        block, since = pauses.popleft()
        found = self._since.get(block)
        if found is None or found[0] != since:
            return  # it went on
        self._count(found[1], span, ended=False)
        if over:
            del self._since[block]
        else:
            self._spans[span + 1].append((block, since))

    def _count(self, client: str, span: int, *, ended: bool) -> None:
        own = self._clients.pop(client, None) or Pauses(self.all)
        self._clients[client] = own
        if len(self._clients) > CLIENTS:
            self._clients.popitem(last=False)
        if span < SPANS:
            own.count(span, ended=ended)
            self.all.count(span, ended=ended)
