"""The simple policy: first come, first served, where fewest slots are busy. Pure.

Whoever an engine has failed goes before all others, as with the prediction. This one is
for comparison, and for what the prediction has nothing to say about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from balancer.candidates import Candidate
from balancer.ledger import Ledger
from balancer.schedule import Refuse, Send, Wait, choose
from balancer.waiting import RETRY_AFTER, Ticket


class LeastBusy:
    """Those who wait, in order of arrival."""

    def __init__(
        self, candidates: Callable[[], Sequence[Candidate]], ledger: Ledger
    ) -> None:
        self._candidates = candidates
        self._ledger = ledger
        self._waiting: dict[Ticket, None] = {}

    def enter(self, ticket: Ticket) -> Wait | None:
        """Serve it at once, or keep it."""
        match choose(self._candidates(), ticket.need, self._ledger.busy):
            case Wait() as wait:
                self._waiting[ticket] = None
                return wait
            case decision:
                self._settle(ticket, decision)
                return None

    def leave(self, ticket: Ticket) -> None:
        """One that waits has gone."""
        self._waiting.pop(ticket, None)

    def look(self) -> None:
        """Serve whoever can be served; nobody waits behind what another waits for."""
        hopeless = set[tuple[object, ...]]()
        for ticket in sorted(self._waiting, key=_again):
            kind = ticket.need.kind
            if kind in hopeless:
                continue
            match choose(self._candidates(), ticket.need, self._ledger.busy):
                case Wait():
                    hopeless.add(kind)
                case decision:
                    del self._waiting[ticket]
                    self._settle(ticket, decision)

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Its slots are free, or will be once the engine has noticed who `left`."""
        self._ledger.give_back(send.to.key, send.slots, left=left)

    def settle(self, send: Send) -> None:
        """Whoever left it has been noticed by now, unless its node says otherwise."""
        self._ledger.settle(send.to.key)

    def patience(self, ticket: Ticket) -> int:  # noqa: ARG002 - it predicts nothing
        """A guess."""
        return RETRY_AFTER

    def _settle(self, ticket: Ticket, decision: Send | Refuse) -> None:
        if isinstance(decision, Send):
            self._ledger.take(decision.to.key, decision.slots)
        ticket.settle(decision)


def _again(ticket: Ticket) -> bool:
    """Sort those first that an engine has failed; the others stay in order."""
    return not ticket.need.tried
