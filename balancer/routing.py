"""The policy that predicts: each request goes where it is answered soonest. Pure.

It puts the fleet's reports, the waiting room's tickets and what the wire shows of each
answer together for `Dispatch`, which decides. What generates no text, such as
embeddings and counts of tokens, goes where fewest slots are busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil

from balancer.candidates import Candidate
from balancer.dispatch import Bound, Dispatch, Turned
from balancer.eligible import Able, Filter, Weighed
from balancer.followed import Clock, Followed
from balancer.lane import Lane
from balancer.lanes import Lanes
from balancer.least_busy import LeastBusy
from balancer.ledger import Ledger
from balancer.predict import cheapest
from balancer.question import Ask
from balancer.schedule import Need, Refuse, Send, Verdict, Wait
from balancer.waiting import RETRY_AFTER, Ticket
from edgeserve.errors import FleetBusy

MOST_SLOTS = 1024
"""Every slot is remembered with what it holds. Where an engine has more, slots are not
what is scarce, and counting them is good enough for the whole fleet."""

MOST_PATIENCE = 600
"""Seconds; nobody should be told to come back tomorrow."""


class Predict:
    """Those who wait, and the prediction that serves them."""

    def __init__(
        self, ledger: Ledger, lanes: Lanes, mind: Dispatch, clock: Clock
    ) -> None:
        self.mind = mind
        self.lanes = lanes
        self.moved: Callable[[], None] = lambda: None
        """Called when something is known better than before."""
        self._ledger = ledger
        self._clock = clock
        self._filter = Filter(lanes)
        self._asks: dict[Ticket, Ask] = {}
        self._tickets: dict[Ask, Ticket] = {}
        self._checked = True
        self._wide = False
        self._plain = LeastBusy(lambda: self._filter.candidates, ledger)
        mind.eligible = self._eligible

    def told(self, candidates: Sequence[Candidate]) -> None:
        """The fleet changed."""
        few = [each for each in candidates if each.engine.slots <= MOST_SLOTS]
        self._wide = len(few) < len(candidates)
        self.lanes.sync(few, self._clock())
        self._filter.told(candidates)
        self._checked = False

    def enter(self, ticket: Ticket) -> Wait | None:
        """Serve it at once, keep it, or turn it away."""
        if self._wide or not ticket.need.generates:
            return self._plain.enter(ticket)
        able = self._filter.able(ticket.need)
        if isinstance(able, Refuse):
            ticket.settle(able)
            return None
        now = self._clock()
        ask = _ask(ticket.need, able, now)
        self._asks[ticket], self._tickets[ask] = ask, ticket
        turned = self.mind.offer(ask, now)
        if turned is not None:
            verdicts = tuple(self.weighed(ask))
            self._forget(ticket)
            ticket.settle(Refuse(_busy(turned), verdicts))
            return None
        self._assign(now)
        return None if ticket.decision else Wait(_Live(self, ask))

    def leave(self, ticket: Ticket) -> None:
        """One that waits has gone; why it waited stays."""
        ask = self._asks.get(ticket)
        if ask is None:
            self._plain.leave(ticket)
        else:
            ticket.note(Wait(tuple(self.weighed(ask))))
            self.mind.withdraw(self._forget(ticket))

    def look(self) -> None:
        """Settle whom something can be done for."""
        self._plain.look()
        if not self._checked:
            self._checked = True
            self._refuse_hopeless()
        self._assign(self._clock())

    def give_back(self, send: Send, *, left: bool = False) -> None:
        """Its slots are free, and what can be learned from it is learned."""
        key = send.to.key
        self._ledger.give_back(key, send.slots, left=left)
        if isinstance(send.course, Followed):
            send.course.over()
            if left:
                self.lanes.abandoned(key, send.course.slots)
        self.lanes.recount(key, self._clock())

    def settle(self, send: Send) -> None:
        """Whoever left it has been noticed by now, unless its node says otherwise."""
        self._ledger.settle(send.to.key)
        self.lanes.recount(send.to.key, self._clock())

    def patience(self, ticket: Ticket) -> int:
        """Until a slot will come free for it."""
        ask = self._asks.get(ticket)
        best = self.mind.choose(ask, self._clock()) if ask else None
        return _seconds(best.wait) if best else RETRY_AFTER

    def idle(self, need: Need) -> float | None:
        """Seconds to the first token on the best engine with a free slot, if any."""
        able = self._filter.able(need)
        if isinstance(able, Refuse):
            return None
        now = self._clock()
        question = self.mind.question(_ask(need, able, now), now)
        best, _ = cheapest(question, able.lanes)
        return best.first if best and best.wait == 0 and best.slot >= 0 else None

    def weighed(self, ask: Ask) -> Iterator[Verdict]:
        """Explain why a request waits, as things are now."""
        able = self._filter.able(self._tickets[ask].need)
        if isinstance(able, Refuse):
            return iter(able.verdicts)
        return iter(Weighed(able, self.mind.weigh(ask, self._clock())[1]))

    def waits(self, ask: Ask) -> bool:
        """Whether it still does."""
        return ask in self._tickets

    def _eligible(self, ask: Ask) -> Sequence[Lane]:
        able = self._filter.able(self._tickets[ask].need)
        return () if isinstance(able, Refuse) else able.lanes

    def _refuse_hopeless(self) -> None:
        for ticket in list(self._asks):
            able = self._filter.able(ticket.need)
            if isinstance(able, Refuse):
                self.mind.withdraw(self._forget(ticket))
                ticket.settle(able)

    def _assign(self, now: float) -> None:
        for bound in self.mind.assign(now):
            self._send(bound)

    def _send(self, bound: Bound) -> None:
        ticket, lane = self._tickets[bound.ask], bound.lane
        able = self._filter.able(ticket.need)
        assert isinstance(able, Able)  # noqa: S101 - or there were no lanes
        to = able.by_lane[lane.name]
        key, slots = to.key, ticket.need.slots
        self._ledger.take(key, slots)
        course = Followed(
            self.mind,
            bound,
            self._clock,
            lambda: self.lanes.get(key) is lane,
            self.moved,
        )
        self._forget(ticket)
        ticket.settle(Send(to, slots, Weighed(able, bound.seen, bound.parts), course))

    def _forget(self, ticket: Ticket) -> Ask:
        ask = self._asks.pop(ticket)
        del self._tickets[ask]
        return ask


class _Live:
    """Verdicts about a request that waits, as things are when somebody looks."""

    def __init__(self, policy: Predict, ask: Ask) -> None:
        self._policy = policy
        self._ask = ask

    def __iter__(self) -> Iterator[Verdict]:
        if self._policy.waits(self._ask):
            yield from self._policy.weighed(self._ask)


def _ask(need: Need, able: Able, now: float) -> Ask:
    slots = min((lane.slots for lane in able.lanes), default=1)
    return Ask(
        able.lanes[0].model if able.lanes else need.model,
        need.prompt,
        need.client,
        now,
        need.budget,
        need.deadline if able.measured else None,
        need.session,
        min(need.slots, slots),
        again=bool(need.tried),
    )


def _busy(turned: Turned) -> FleetBusy:
    retry_after = _seconds(turned.retry_after)
    return FleetBusy(
        retry_after,
        f"{turned.why}: its first token would come in {turned.predicted:.1f} s",
    )


def _seconds(predicted: float) -> int:
    return min(max(1, ceil(predicted)), MOST_PATIENCE)
