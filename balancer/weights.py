"""What a predicted second counts for, by what it is spent on. Pure.

    cost = overhead + wait + ahead + read          until its first token
         + write · answer                          until its last
         + (crowd · load/(1-load) + queue · waiting) · (read + answer) / slots
                                                   those who come later, and who wait
         + others · running · read                 those who are there: their answers
                                                   stand still while a prompt is read
         + loss · forgotten · chance to be missed  those who come back
         + risk                                    trying an engine that may fail

The simulator chose the numbers: over three fleets, three loads and three kinds of
traffic they lie on a plateau, where halving or doubling any one of them moves the mean
of all figures by 3 to 5 %. Leaving a term out costs more: `crowd` 6 %, `loss` 20 %.
What is lost and what must be read count at the price of a second of reading there, so
that a crowded engine keeps its conversations and sends strangers elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_LOAD = 0.75
"""Past it engines count as equally crowded: a recent load is not that exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A second before the first token of the request at hand counts 1."""

    write: float = 0.2
    crowd: float = 1.0
    queue: float = 3.0
    others: float = 1.5
    loss: float = 3.0

    def slot_second(self, load: float, queued: int, slots: int) -> float:
        """What a second of slot time costs everybody else."""
        load = min(load, MOST_LOAD)
        return (self.crowd * load / (1 - load) + self.queue * queued) / slots


WEIGHTS = Weights()
