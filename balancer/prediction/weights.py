"""Cost weights: what a predicted second counts for, by what it is spent on. Pure.

    cost = overhead + wait + ahead + read          until its first token
         + write · answer                          until its last
         + queue · waiting · (read + answer) / slots
                                                   those who wait for a full engine
         + others · running · read                 those who are there: their answers
                                                   stand still while a prompt is read
         + loss · forgotten · chance to be missed  those who come back
         + risk                                    trying an engine that may fail

What will have to be read anew counts at the price of a second of reading there, so that
a crowded engine keeps its conversations and strangers go elsewhere.

The simulator chose the numbers, over three fleets, three loads and three kinds of
traffic. Halving or doubling one of them makes the mean of all figures up to 7 % worse.
Leaving one out costs 27 % (`loss`), 6 % (`others`, `queue`) or 1 % (`write`, which is
there for long answers). A charge for recent load, as queueing theory has it, was worth
nothing beside these and was taken out.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A second before the first token of the request at hand counts 1."""

    write: float = 0.3
    queue: float = 3.0
    others: float = 1.5
    loss: float = 3.0


WEIGHTS = Weights()
