"""Queued requests: what waits for a slot, and the policies that assign it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from balancer.prediction.engine_model import EngineModel
from balancer.routing.decision import Decision, Refuse, RoutingRequest, Send, Verdict

Note = Callable[[Decision], None]

RETRY_AFTER = 2
"""Seconds, as long as nothing better is predicted."""


class QueuedRequest:
    """One request in the queue, and what the prediction notes down about it.

    `arrived` is by the queue's clock. `again`: an engine has failed it already.
    `wake` exists once it has to wait. `priced`: the prediction decides, not the count
    of busy slots; then `model` is its name in the fleet, `slots` what it takes there
    and `deadline` when its first token must have come. `tokens` and `answer` are its
    lengths where they are known better than from experience. `read` is the prefill
    it was last predicted, in seconds, and `target` the engine it waits for.
    """

    __slots__ = (
        "again",
        "answer",
        "arrived",
        "client",
        "deadline",
        "decision",
        "model",
        "need",
        "note",
        "priced",
        "read",
        "slots",
        "target",
        "tokens",
        "wake",
    )

    def __init__(self, need: RoutingRequest, note: Note, arrived: float) -> None:
        self.need = need
        self.note = note
        self.arrived = arrived
        self.client = need.client
        self.again = bool(need.tried)
        self.decision: Send | Refuse | None = None
        self.wake: Callable[[], None] | None = None
        self.priced = False
        self.model = need.model
        self.slots = need.slots
        self.deadline = need.deadline
        self.tokens: float | None = None
        self.answer: float | None = None
        self.read = 0.0
        self.target: EngineModel | None = None

    def settle(self, decision: Send | Refuse) -> None:
        """Tell it what became of it.

        What is kept of a request must not hold its client: `note` is let go.
        """
        self.decision = decision
        note, self.note = self.note, unheard
        note(decision)
        if self.wake is not None:
            self.wake()


def unheard(decision: Decision) -> None:
    """Keep nothing."""


Settled = tuple[QueuedRequest, Send | Refuse]


class RoutingPolicy(Protocol):
    """Decides which request goes where. Slots that it grants count as taken at once."""

    def refusal(
        self, request: QueuedRequest, now: float, *, full: bool
    ) -> Refuse | None:
        """Whether a new request is turned away; `full`: there is no room to wait."""
        ...

    def assign(self, waiting: Collection[QueuedRequest], now: float) -> list[Settled]:
        """Settle the requests for which something can be done now."""
        ...

    def explain(self, request: QueuedRequest, now: float) -> Iterable[Verdict]:
        """Say of each engine why a request waits for it, or cannot use it."""
        ...

    def forget(self, request: QueuedRequest) -> None:
        """A request waits no longer, and was not settled."""
        ...

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Its slots are free, or will be once the engine has noticed that it `left`."""
        ...

    def settle(self, send: Send) -> None:
        """By now the engine has noticed that it left, unless its node says not."""
        ...

    def patience(self, request: QueuedRequest, now: float) -> int:
        """Seconds after which one that finds no room to wait may try again."""
        ...
