"""Cost weights: what a predicted second counts for, by what it is spent on. Pure.

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

The simulator chose the numbers, over three fleets, three loads and three kinds of
traffic. Halving or doubling one of them makes the mean of all figures up to 7 % worse.
Leaving one out costs 27 % (`loss`), 6 % (`others`, `queue`) or 1 % (`write`, which
matters for long answers). A charge for recent load, as queueing theory has it, gave
nothing beside these and was removed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights; a second before the first token of the request itself counts 1."""

    write: float = 0.3
    queue: float = 3.0
    others: float = 1.5
    loss: float = 3.0


WEIGHTS = Weights()
