"""Returns: how likely, and how soon, a paused conversation goes on. Pure.

Pauses are counted in doubling spans (up to 1 s, 2 s, 4 s, …), for all conversations of
a model and for those of each client: an agent goes on at once, a person after a while.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from balancer.dialects.prompt import Prompt

SPANS = 10
"""After 512 s a conversation counts as over."""

FADE = 0.995

PRIOR = 8.0
"""How many counts the first guess is worth."""

CLIENTS = 1024
"""Most clients whose pauses are remembered."""


class Pauses:
    """For each span: how many pauses reached it, and how many ended in it.

    Their ratio is the hazard of the product-limit estimate (Kaplan and Meier 1958), so
    that pauses which have not ended yet count as far as they have come.
    """

    def __init__(self, like: Pauses | None = None) -> None:
        self.reached = [PRIOR] * SPANS
        # Most chats continue, within a few minutes.
        self.ended = [0.15 * PRIOR] * SPANS
        if like is not None:
            pairs = zip(like.ended, like.reached, strict=True)
            self.ended = [PRIOR * ended / reached for ended, reached in pairs]
        self._chances: list[float] | None = None

    def count(self, span: int, *, ended: bool) -> None:
        """Count a pause that ended in a span, or went on beyond it."""
        self.reached[span] = self.reached[span] * FADE + 1
        self.ended[span] = self.ended[span] * FADE + ended
        self._chances = None

    def chance(self, paused: float) -> float:
        """Probability that a conversation continues after so many seconds of pause."""
        if self._chances is None:
            self._chances = _chances(self.reached, self.ended)
        return self._chances[_span(paused)]

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
    return min(max(int(paused), 0).bit_length(), SPANS)


class Returns:
    """The pauses of one model's conversations.

    A conversation is remembered by the hash of its last prompt, on any engine, so that
    one whose slot was taken counts like any other.
    """

    REMEMBERED = 4096

    def __init__(self) -> None:
        self.all = Pauses()
        self._clients: OrderedDict[str, Pauses] = OrderedDict()
        self._since: dict[bytes, tuple[float, str]] = {}
        self._spans = [deque[tuple[bytes, float]]() for _ in range(SPANS)]
        """The pauses that have reached each span and not gone beyond it."""

    def of(self, client: str) -> Pauses:
        """Return the pauses of a client, or of all where it has had none."""
        return self._clients.get(client) or self.all

    def answered(self, prompt: Prompt, client: str, now: float) -> None:
        """Note that a prompt was answered; its conversation pauses from now on."""
        if prompt.blocks:
            self._since[prompt.blocks[-1]] = now, client
            self._spans[0].append((prompt.blocks[-1], now))
        self._pass(now)

    def arrived(self, prompt: Prompt, now: float) -> bool:
        """Note a new prompt; return whether it continues a known conversation."""
        self._pass(now)
        for count in prompt.messages[-2:-6:-1]:
            found = self._since.pop(prompt.blocks[count - 1], None)
            if found is not None:
                since, client = found
                self._count(client, _span(now - since), ended=True)
                return True
        return False

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
