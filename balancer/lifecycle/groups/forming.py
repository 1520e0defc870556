"""Forming groups: measure the networks that matter, then tell the head.

The plan is made anew at that moment, since machines may have come and gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import groupby

from balancer.discovery.node_answers import told
from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate
from balancer.groups.links import Pair
from balancer.groups.members import formed_groups
from balancer.groups.plan import GroupPlan, NoGroup, form_order, urls
from balancer.groups.planner import hiccups
from balancer.lifecycle.orders import (
    ANSWER_SECONDS,
    LATER_SECONDS,
    Refused,
    TryLater,
    understood,
)
from balancer.lifecycle.placement import Load, Unload
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError
from edgeserve.openai import normal
from edgeserve.orders.groups import (
    DISSOLVE,
    FORM,
    LINK,
    DissolveGroup,
    FormGroup,
    MeasureLink,
    NodeLink,
)
from edgeserve.wire import encode

LINK_SECONDS = 5.0
"""Longest time to measure one link."""

LINKS_SECONDS = 10.0
"""Longest time to measure all that are missing; the rest counts as unmeasured."""

ROOM = "another model needs its memory"

Outcome = TryLater | Refused | None


@dataclass(frozen=True, kw_only=True)
class GroupForming:
    """Tells heads to form and to dissolve groups.

    `over` tells whether a group has had its turn, so that it may leave for others.
    """

    state: BalancerState
    nodes: NodeClient
    over: Callable[[EngineCandidate], bool]

    async def send(self, wish: Load | Unload) -> Outcome:
        """Send an order of the loader; None where the head has taken it."""
        variant = wish.to.engine.variant
        if isinstance(wish, Unload):
            order = DissolveGroup(variant=variant, why=wish.why)
            return await self.tell(wish.to.node_id, DISSOLVE, order)
        await self.measure(variant)
        fleet = self.state.current.fleet
        plan = self.plan(variant)
        if not isinstance(plan, GroupPlan):
            if plan is None or hiccups(fleet):
                return TryLater(LATER_SECONDS)
            if await self.makes_room({each.node for each in wish.to.engine.group}):
                return TryLater(LATER_SECONDS)
            return Refused(plan.why)
        if plan.head != wish.to.node_id:
            self.refresh(now=True)
            return TryLater(0.0)
        return await self.form(plan, wish.why)

    async def makes_room(self, nodes: Collection[str]) -> bool:
        """End the groups that have memory of these nodes, once each had its turn.

        False where there is none.
        """
        groups = [
            each
            for each in self.state.current.candidates
            if each.engine.group
            and each.engine.state != "absent"
            and not each.engine.pinned
            and any(member.node in nodes for member in each.engine.group)
        ]
        for each in groups:
            if self.over(each):
                order = DissolveGroup(variant=each.engine.variant, why=ROOM)
                await self.tell(each.node_id, DISSOLVE, order)
        return bool(groups)

    async def form(self, plan: GroupPlan, why: str) -> Outcome:
        """Have a group formed."""
        current, variant = self.state.current, plan.model.variant
        order = form_order(plan, current.fleet, why)
        outcome = await self.tell(plan.head, FORM, order)
        if outcome is None:
            current.say(f"a group is formed for {variant}: {plan.why}")
            self.state.groups.history.formed(variant)
            await self._end_others(plan)
        return outcome

    async def _end_others(self, plan: GroupPlan) -> None:
        """End the variant's groups of other heads, which would try again for ever."""
        variant = plan.model.variant
        order = DissolveGroup(
            variant=variant, why=f"{plan.split.head.machine.name} has it"
        )
        for head, engine in formed_groups(self.state.current.fleet.nodes):
            if head.id != plan.head and normal(engine.variant) == normal(variant):
                await self.tell(head.id, DISSOLVE, order)

    def plan(self, variant: str) -> GroupPlan | NoGroup | None:
        """Return the best group now."""
        current = self.state.current
        return self.state.groups.plan(current.fleet, current.candidates, variant)

    def refresh(self, *, now: bool = False) -> None:
        """Plan anew what requests may ask for; `now`: also where little has changed."""
        current = self.state.current
        if self.state.groups.refresh(current.fleet, current.candidates, now=now):
            current.judge()

    async def tell(
        self, node: str, path: str, order: FormGroup | DissolveGroup
    ) -> Outcome:
        """Send a node an order about a group."""
        head = self.state.current.fleet.node(node)
        if head is None:
            return TryLater(LATER_SECONDS)
        try:
            async with (
                asyncio.timeout(ANSWER_SECONDS),
                self.nodes.order(head.origin, path, encode(order)) as answer,
            ):
                outcome = understood(answer.status, answer.headers, await answer.read())
        except (EdgeserveError, TimeoutError):
            return TryLater(LATER_SECONDS)
        if outcome is None and isinstance(order, DissolveGroup):
            self.state.groups.history.left(order.variant)
        return outcome

    async def measure(self, variant: str) -> None:
        """Measure the links that a group of a variant may use, and that are not known.

        Each head measures its own, one after the other.
        """
        missing = self.state.groups.missing(self.state.current.fleet, variant)
        try:
            async with asyncio.timeout(LINKS_SECONDS):
                await asyncio.gather(
                    *(
                        self._measure_each(list(pairs))
                        for _, pairs in groupby(missing, key=lambda pair: pair[0])
                    )
                )
        except TimeoutError:
            pass  # those that are missing count as poor ones

    async def _measure_each(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            link = await self._measured(pair)
            self.state.groups.links.note(self.state.current.fleet, pair, link)

    async def _measured(self, pair: Pair) -> NodeLink | None:
        """Return a link; None where the head cannot reach the worker."""
        fleet = self.state.current.fleet
        head = fleet.node(pair[0])
        if head is None:
            return None
        order = MeasureLink(node=pair[1], urls=urls(fleet, pair[1]))
        asking = self.nodes.order(head.origin, LINK, encode(order))
        try:
            async with asyncio.timeout(LINK_SECONDS):
                return await told(asking, head.name, NodeLink)
        except (EdgeserveError, TimeoutError):
            return None
