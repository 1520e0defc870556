"""Objective: what a predicted second counts for, and who goes first. Pure.

Which engine a request goes to is decided by the least cost, in seconds:

    first = overhead + wait + ahead + read         until its first token
    cost = first + late · first² / mean work
         + write · answer                          until its last
         + queue · waiting · (read + answer) / slots
                                                   requests that wait for a full engine
         + others · running · read                 running requests: their answers pause
                                                   while a prompt is read
         + loss · forgotten · chance to be missed  conversations that continue later
         + risk                                    trying an engine that may fail

The square is for the tail: of a mean, and of the exponential moment that decides over
the tail below, what is late already makes a second more cost more. Without it a short
question was sent to a slow engine for four seconds, rather than wait half a second for
a fast one whose slots held conversations.

Content that must be read again counts at the price of a second of reading there, so
that a busy engine keeps its conversations and new ones go elsewhere.

Which of the waiting requests is served next is decided by the earliest time of

    arrival - T · ln(1 / (1 - exp(-work / T))) - T · min(waited / mean work / 2, 5 / 4)
    T = `overtake` · mean work
    work = ahead + read + write + what is lost with the slot's content

This is the boost policy, whose tail of waiting times is the best that any order has
(Yu and Scully, "Strongly Tail-Optimal Scheduling in the Light-Tailed M/G/1", 2024).
Among small requests it is shortest first: one with a tenth of the work goes before
another that came up to 2.3 T earlier. Among large ones it is first come, first served.
What is cached counts: the conversation whose slot has come free has least to read.
A conversation brings along what it has `waited` for its earlier answers. So those that
have begun come to their end, where more than there are slots would only take the slots
from each other; a newcomer waits 5/4 T longer for it at most. With `overtake` 0 all are
served as they come.

The simulator chose the numbers. Over its three fleets and three loads of made-up chats
leaving one out makes the mean of all figures 10 % (`loss`), 3 % (`queue`), 1 %
(`others`) or not at all (`write`, which matters for long answers) worse; halving or
doubling one makes it between 3 % better and 3 % worse. A charge for recent load, as
queueing theory has it, gave nothing beside these and was removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, log


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights; a second before the first token of the request itself counts 1."""

    write: float = 0.3
    queue: float = 4.0
    others: float = 1.5
    loss: float = 1.5


WEIGHTS = Weights()

OVERTAKE = 6.0
"""Less serves the 99th percentile, more the median."""

LATE = 0.06
"""What the square of the first token's seconds costs, by the mean work."""

SENIORITY, MOST_SENIORITY = 0.5, 1.25
"""By T: what a mean work counts that its conversation has waited, and all of it."""

LEAST = 1e-3
"""Of the mean: nothing is so small that it may go before everything."""


def head_start(work: float, scale: float) -> float:
    """Return by how many seconds a request may be later and still go first.

    `work` and `scale` (T above) are in seconds.
    """
    if scale <= 0.0:
        return 0.0
    return -scale * log(1 - exp(-max(work / scale, LEAST)))


def seniority(waited: float, overtake: float, work: float) -> float:
    """Return for how many seconds of waiting it counts what a conversation has waited.

    `work` is the mean work of a request, in seconds.
    """
    return overtake * min(SENIORITY * waited, MOST_SENIORITY * work)


def lateness(work: float) -> float:
    """Return what the square of the first token's seconds costs, at this mean work."""
    return LATE / work if work > 0.0 else 0.0
