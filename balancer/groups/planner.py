"""Group planner: the groups that could be formed now, as engines that are not loaded.

A model that fits on no single machine is shown as an absent engine of the node that
would be the head. So requests for it wait, have it loaded and are refused like those
for any other model that is not loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial

from balancer.fleet.engines import NOT_LOADED, EngineCandidate
from balancer.fleet.members import Fleet
from balancer.groups.history import FORMED_SECONDS, MOST_FORMED, GroupHistory
from balancer.groups.links import LinkTable, Pair
from balancer.groups.members import (
    SplittableModel,
    machines,
    splittable,
)
from balancer.groups.pace import Pace, Paces, group_paces, paces
from balancer.groups.plan import (
    GroupPlan,
    NoGroup,
    engine_of,
    no_engine_of,
    plan_group,
)
from balancer.prediction.fleet_model import FleetModel
from edgeserve.openai import normal

PLAN_SECONDS = 5.0
"""Free memory and speeds move all the time: plans follow them so often."""

SERVES = frozenset(("ready", "busy", "leaving"))
LOADED = frozenset(("loading", "ready", "busy", "leaving"))


class GroupPlanner:
    """Plans groups from what nodes report, and remembers links and losses.

    `automatic`: requests may have a group formed.
    """

    def __init__(
        self,
        models: FleetModel,
        *,
        automatic: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.automatic = automatic
        self.links = LinkTable(clock)
        self.history = GroupHistory(clock)
        self._models = models
        self._clock = clock
        self._shown: dict[str, EngineCandidate] = {}
        self._together: dict[str, Pace] = {}
        self._seen: object = None
        self._planned_at = -PLAN_SECONDS

    def grouped(
        self, fleet: Fleet, candidates: tuple[EngineCandidate, ...]
    ) -> tuple[EngineCandidate, ...]:
        """Add the groups that are not formed, at each change of the fleet.

        One that has lost a member gives way to another one that can be formed.
        """
        if not self._shown:
            return candidates
        formed = [each for each in candidates if each.engine.group]
        self.history.note(each.engine for each in formed)
        gone = {
            each.key
            for each in formed
            if _is_broken(each, fleet) and self._is_over(each, fleet)
        }
        left = tuple(each for each in candidates if each.key not in gone)
        there = {each.engine.id for each in left if each.engine.group}
        shown = (each for each in self._shown.values() if each.engine.id not in there)
        return left + tuple(each for each in shown if each.node_id in fleet.by_id)

    def _is_over(self, group: EngineCandidate, fleet: Fleet) -> bool:
        """Whether a broken group will not be back, or another one can be formed."""
        instead = self._shown.get(normal(group.engine.variant))
        if instead is not None and instead.temporary:
            return True
        nodes = (fleet.node(each.node) for each in group.engine.group)
        return any(each is None or each.state == "unreachable" for each in nodes)

    @property
    def possible(self) -> tuple[EngineCandidate, ...]:
        """The groups that could be formed, and those that there cannot be."""
        return tuple(self._shown.values())

    def refresh(
        self, fleet: Fleet, candidates: Sequence[EngineCandidate], *, now: bool = False
    ) -> bool:
        """Plan anew where something has changed, or `now`; returns if engines did."""
        models = self._needed(fleet)
        if not models and not self._shown:
            return False
        seen, time_ = self._situation(fleet, models), self._clock()
        if seen == self._seen and not now and time_ < self._planned_at + PLAN_SECONDS:
            return False
        self._seen, self._planned_at = seen, time_
        found = self._paces(fleet, candidates)
        before, self._shown = self._shown, {}
        for name, model in models.items():
            old = before.get(name)
            each = self._candidate(fleet, model, found, old)
            if each is not None:
                self._shown[name] = old if old is not None and old == each else each
        return before != self._shown

    def _paces(self, fleet: Fleet, candidates: Iterable[EngineCandidate]) -> Paces:
        """Return how fast machines are: by their own engines, else as in a group.

        What a group has shown is remembered when it has gone.
        """
        all_, known = tuple(candidates), self.links.known(fleet)
        together = group_paces(fleet, all_, self._models, known)
        self._together = {**self._together, **together}
        return {**self._together, **paces(all_, self._models)}

    def _situation(self, fleet: Fleet, models: Mapping[str, SplittableModel]) -> object:
        """Return all that plans depend on, but for what moves all the time."""
        nodes = [
            (
                *(node.id, node.state, node.report.instance, node.origin.url),
                node.report.rpc,
                {each.id for each in node.report.engines if each.state in LOADED},
                node.report.workers,
            )
            for node in fleet.nodes
            if node.report.rpc or node.report.available
        ]
        return (
            nodes,
            models,
            self.links.version,
            self.history.lost(),
            self._rested(models),
        )

    def _rested(self, variants: Iterable[str]) -> dict[str, bool]:
        return {each: self.history.rest(each) <= 0 for each in variants}

    def plan(
        self,
        fleet: Fleet,
        candidates: Iterable[EngineCandidate],
        variant: str,
        *,
        only: Collection[str] = (),
        head: str = "",
    ) -> GroupPlan | NoGroup | None:
        """Return the best group for a variant now; None where none could be split.

        `only`: of these nodes; `head`: with this one as its head.
        """
        model = splittable(fleet.nodes).get(normal(variant))
        if model is None:
            return None
        if head and head not in model.holders:
            why = f"{_names(fleet, (head,))} has no file of it, and cannot lead;"
            why += f" it is on {_names(fleet, model.holders)}"
            return NoGroup(model=model, holder=model.holders[0], why=why)
        found = self._paces(fleet, candidates)
        return self._plan(fleet, model, found, only=only, head=head)

    def _plan(
        self,
        fleet: Fleet,
        model: SplittableModel,
        found: Paces,
        *,
        only: Collection[str] = (),
        head: str = "",
        cleared: bool = False,
    ) -> GroupPlan | NoGroup:
        avoided = frozenset[str]() if only else self.history.lost()
        able = partial(
            machines, fleet, model, found, only=only, head=head, cleared=cleared
        )
        links = self.links.known(fleet)
        plan = plan_group(model, able(avoided=avoided), links)
        if avoided and isinstance(plan, NoGroup) and not _has_group(fleet, model):
            # No head tries again by itself, and those that were lost are up.
            plan = plan_group(model, able(), links)
        return plan

    def _candidate(
        self,
        fleet: Fleet,
        model: SplittableModel,
        found: Paces,
        old: EngineCandidate | None,
    ) -> EngineCandidate | None:
        """Return the engine that is shown, in the place of the `old` one."""
        plan = self._plan(fleet, model, found)
        if isinstance(plan, NoGroup) and old and old.temporary and hiccups(fleet):
            return old
        later = isinstance(plan, NoGroup) and _others(fleet, model)
        if later:
            plan = self._plan(fleet, model, found, cleared=True)
        node = fleet.node(plan.head if isinstance(plan, GroupPlan) else plan.holder)
        if node is None:
            return None
        why, temporary = self._unavailable(plan)
        if later and temporary:
            why = f"not loaded here: the group of {later} has to leave for it"
        engine = engine_of(plan) if isinstance(plan, GroupPlan) else no_engine_of(plan)
        return EngineCandidate(
            node_id=node.id,
            node=node.name,
            origin=node.origin,
            engine=engine,
            unavailable=why,
            temporary=temporary,
            identity=node.report.id,
            instance=node.report.instance,
        )

    def _unavailable(self, plan: GroupPlan | NoGroup) -> tuple[str, bool]:
        if isinstance(plan, NoGroup):
            return f"{plan.model.reason or 'it does not fit there'}; {plan.why}", False
        if rest := self.history.rest(plan.model.variant):
            why = (
                f"its group was formed {MOST_FORMED} times in"
                f" {FORMED_SECONDS / 60:g} minutes, as often as it may be; it is tried"
                f" again in {rest:.0f} s"
            )
            return why, False
        return NOT_LOADED, True

    def missing(self, fleet: Fleet, variant: str) -> list[Pair]:
        """Return the links that a variant's group may need, and are not measured."""
        model = splittable(fleet.nodes).get(normal(variant))
        return self.links.missing(fleet, model) if model else []

    def _needed(self, fleet: Fleet) -> dict[str, SplittableModel]:
        """Return the models that no machine can serve by itself.

        Where no machine can be in a group, they are refused as in any other fleet.
        """
        some = any(a.layered for node in fleet.nodes for a in node.report.available)
        able = any(node.report.rpc for node in fleet.nodes)
        if not self.automatic or not ((some and able) or self._shown):
            return {}
        return {k: m for k, m in splittable(fleet.nodes).items() if m.needed}


def _names(fleet: Fleet, ids: Iterable[str]) -> str:
    return " and ".join(each.name for id_ in ids if (each := fleet.node(id_)))


def _has_group(fleet: Fleet, model: SplittableModel) -> bool:
    """Whether a head that is there has a model's group, in whatever state."""
    return any(
        each.group and normal(each.variant) == normal(model.variant)
        for node in fleet.nodes
        if node.state != "unreachable"
        for each in node.report.engines
    )


def hiccups(fleet: Fleet) -> bool:
    """Whether a machine fell silent that may be back in a moment, to take part."""
    return any(each.report.rpc and each.state == "suspect" for each in fleet.nodes)


def _is_broken(group: EngineCandidate, fleet: Fleet) -> bool:
    """Whether a group does not serve, and lacks a member; its head, in any state."""
    head = fleet.node(group.node_id)
    if head is None or head.state == "unreachable":
        return True
    if group.engine.state in SERVES:
        return False
    return any(
        each.state == "lost"
        or ((node := fleet.node(each.node)) and node.state == "unreachable")
        for each in group.engine.group
    )


def _others(fleet: Fleet, model: SplittableModel) -> str:
    """Name the variants that groups serve beside a model, "" where there is none."""
    groups = (e for node in fleet.nodes for e in node.report.engines if e.group)
    others = {e.variant for e in groups if normal(e.variant) != normal(model.variant)}
    return " and ".join(sorted(others))
