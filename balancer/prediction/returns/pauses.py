"""Pauses: how long conversations rest before they go on. Pure.

They are counted in doubling spans (up to 1 s, 2 s, 4 s, …), for all conversations of a
model and for those of each client: an agent goes on at once, a person after a while.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

SPANS = 10
"""After 512 s a conversation counts as over."""

ENDS = tuple(2.0**span for span in range(SPANS))
"""The seconds at which each span ends."""

FADE = 0.995

PRIOR = 8.0
"""How many counts the first guess is worth."""

LIKELY = (0.05, 0.05) + (0.15,) * (SPANS - 2)
"""The first guess: most chats continue, few at once and most within some minutes."""


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

    def gain(self, paused: float, saved: float, idle: float) -> float:
        """Return the seconds of work that are saved by waiting for a return, at best.

        A return saves `saved` seconds; each second until then costs `idle` of them. Of
        the ends of the spans, the best time to give up counts.
        """
        best = gain = 0.0
        still, begin = 1.0, max(paused, 0.0)
        for span in range(span_of(paused), SPANS):
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


def span_of(paused: float) -> int:
    """Return the number of the span that a pause has come to."""
    return bisect_right(ENDS, paused)
