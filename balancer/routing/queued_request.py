"""Queued requests: requests that wait for a slot, and the policy protocol. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

import msgspec

from balancer.prediction.engine_model import EngineModel
from balancer.routing.decision import Decision, Refuse, RoutingRequest, Send, Verdict
from balancer.routing.eligibility import Eligible

Note = Callable[[Decision], None]

RETRY_AFTER = 2
"""Seconds, where nothing is predicted."""


class QueuedRequest(msgspec.Struct, eq=False):
    """One request in the queue, and what the prediction notes about it.

    `arrived` is by the queue's clock. `again`: it was sent before. `wake`
    is set once it has to wait. `eligible`: the engines that can serve it, where the
    prediction decides and not the count of busy slots; then `model` is its name in the
    fleet, `slots` how many it takes there and `deadline` the latest time for its first
    token. `tokens` and `answer` are its lengths where they are known exactly. `work` is
    its last predicted work, in seconds, and `target` the engine that it waits for.
    `waited`: seconds that its conversation has waited for the answers before it.
    """

    routing: RoutingRequest
    note: Note
    arrived: float
    decision: Send | Refuse | None = None
    wake: Callable[[], None] | None = None
    eligible: Eligible | None = None
    client: str = ""
    again: bool = False
    model: str = ""
    slots: int = 0
    deadline: float | None = None
    tokens: float | None = None
    answer: float | None = None
    work: float = 0.0
    waited: float = 0.0
    target: EngineModel | None = None

    def __post_init__(self) -> None:
        routing = self.routing
        self.client, self.again = routing.client, routing.again or bool(routing.tried)
        self.model, self.slots, self.deadline = (
            routing.model,
            routing.slots,
            routing.deadline,
        )

    def settle(self, decision: Send | Refuse) -> None:
        """Record its decision and wake it.

        The request log keeps the request, which must not keep its client: `note` goes.
        """
        self.decision = decision
        note, self.note = self.note, ignore
        note(decision)
        if self.wake is not None:
            self.wake()


def ignore(decision: Decision) -> None:
    """Do nothing with a decision."""


Settled = tuple[QueuedRequest, Send | Refuse]


class RoutingPolicy(Protocol):
    """Decides which engine gets which request. Granted slots count as taken at once."""

    def refusal(
        self, request: QueuedRequest, now: float, *, full: bool
    ) -> Refuse | None:
        """Return why a new request is refused, if it is; `full`: the queue is full."""
        ...

    def assign(self, waiting: Collection[QueuedRequest], now: float) -> list[Settled]:
        """Settle the requests that can start now or that no engine can serve."""
        ...

    def explain(self, request: QueuedRequest, now: float) -> Iterable[Verdict]:
        """Say for each engine why a request waits for it, or cannot use it."""
        ...

    def recheck(self) -> None:
        """Look again, the next time, at what can serve each request."""
        ...

    def forget(self, request: QueuedRequest) -> None:
        """Forget a request that stopped waiting without a decision."""
        ...

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Free its slots; where its client `left`, once the engine has noticed."""
        ...

    def settle(self, send: Send) -> None:
        """Trust the last report on a slot whose client left."""
        ...

    def patience(self, request: QueuedRequest, now: float) -> int:
        """Seconds after which a request that finds the queue full may try again."""
        ...
