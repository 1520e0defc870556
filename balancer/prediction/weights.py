"""Objective: what a predicted second counts for, and who goes first. Pure.

Which engine a request goes to is decided by the least cost, in seconds:

    cost = overhead + wait + ahead + read          until its first token
         + write · answer                          until its last
         + queue · waiting · (read + answer) / slots
                                                   requests that wait for a full engine
         + others · running · read                 running requests: their answers pause
                                                   while a prompt is read
         + loss · forgotten · chance to be missed  conversations that continue later
         + risk                                    trying an engine that may fail

Content that must be read again counts at the price of a second of reading there, so
that a busy engine keeps its conversations and new ones go elsewhere.

Which of the waiting requests is served next is decided by the earliest time of

    arrival - T · ln(1 / (1 - exp(-work / T)))     T = `overtake` · mean work
    work = ahead + read + write + what is lost with the slot's content

This is the boost policy, whose tail of waiting times is the best that any order has
(Yu and Scully, "Strongly Tail-Optimal Scheduling in the Light-Tailed M/G/1", 2024).
Among small requests it is shortest first: one with a tenth of the work goes before
another that came up to 2.3 T earlier. Among large ones it is first come, first served.
What is cached counts: the conversation whose slot has come free has least to read.
With `overtake` 0 all are served as they come.

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
    loss: float = 3.0


WEIGHTS = Weights()

OVERTAKE = 6.0
"""Less serves the 99th percentile, more the median."""

LEAST = 1e-3
"""Of the mean: nothing is so small that it may go before everything."""


def head_start(work: float, scale: float) -> float:
    """Return by how many seconds a request may be later and still go first.

    `work` and `scale` (T above) are in seconds.
    """
    if scale <= 0.0:
        return 0.0
    return -scale * log(1 - exp(-max(work / scale, LEAST)))
