"""Routes of groups: form one, end one, or say what one would do, for admins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

from balancer.api.models.orders import NotLoadable
from balancer.api.nodes import named
from balancer.fleet.catalog import state_of
from balancer.fleet.engines import EngineCandidate
from balancer.groups.members import formed_groups, splittable
from balancer.groups.plan import GroupPlan, NoGroup, about
from balancer.groups.split import Share
from balancer.lifecycle.groups.forming import GroupForming, Outcome
from balancer.lifecycle.orders import Refused
from balancer.state import BalancerState
from edgeserve.errors import NodeLost, UnknownModel
from edgeserve.http.server.aiohttp_routes import guarded, json_response
from edgeserve.http.server.context import Admit
from edgeserve.openai import normal
from edgeserve.orders.groups import DISSOLVE, DissolveGroup, group_id
from edgeserve.wire import decode

WHY = "an admin asked for it"

Json = dict[str, Any]


class GroupOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Body of `group`. `nodes` are all that may take part, if any are named.

    `dissolve` ends the group; `dry_run` only says what it would be.
    """

    nodes: tuple[str, ...] = ()
    head: str | None = None
    dissolve: bool = False
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class GroupRoutes:
    """The route that changes groups. `manages` guards it."""

    state: BalancerState
    forming: GroupForming
    manages: Admit

    def routes(self) -> Iterable[web.RouteDef]:
        """Return the route."""
        path = "/edgeserve/v1/models/{name}/group"
        yield web.post(path, guarded(self.manages, self.group))

    async def group(self, request: web.Request) -> web.Response:
        """Do what the body says, see `GroupOrder`."""
        order = decode(await request.read() or b"{}", GroupOrder)
        name = request.match_info["name"]
        if order.dissolve:
            return json_response(await self.dissolve(name), status=202)
        plan = await self.plan(name, order)
        shown = {
            **shown_plan(plan),
            "measured": self._measured(plan),
            "alone": list(self._alone(plan)),
        }
        if order.dry_run:
            return json_response(shown)
        _check(await self.forming.form(plan, WHY))
        return json_response(shown, status=202)

    async def plan(self, name: str, order: GroupOrder) -> GroupPlan:
        """Return the best group that the order leaves; its links are measured."""
        known = {each.id: each.name for each in self.state.current.fleet.nodes}
        only = {named(each, known, "is in the fleet") for each in order.nodes}
        head = named(order.head, known, "is in the fleet") if order.head else ""
        found = list[GroupPlan | NoGroup]()
        for variant in self._variants(name):
            await self.forming.measure(variant)
            current = self.state.current
            plan = self.state.groups.plan(
                current.fleet, current.candidates, variant, only=only, head=head
            )
            found += [plan] if plan else []
        plans = [each for each in found if isinstance(each, GroupPlan)]
        if plans:
            return max(plans, key=lambda each: each.model.layered.layer_bytes)
        whys = "; ".join(
            f"{each.model.variant}: {each.why}"
            for each in found
            if isinstance(each, NoGroup)
        )
        raise NotLoadable(f"no group can serve {name} now: {whys}")

    def _variants(self, name: str) -> list[str]:
        """Return the variants that are meant. Raises UnknownModel."""
        key = normal(name)
        models = splittable(self.state.current.fleet.nodes)
        meant = [
            each.variant
            for variant, each in models.items()
            if key in {variant, normal(each.model), normal(each.file)}
        ]
        if not meant:
            raise UnknownModel(name, sorted(models))
        return meant

    async def dissolve(self, name: str) -> Json:
        """End the groups of a model once their requests have ended."""
        groups = [
            (head, engine.variant)
            for head, engine in formed_groups(self.state.current.fleet.nodes)
            if normal(name) in {normal(engine.model), normal(engine.variant)}
        ]
        for head, variant in groups:
            order = DissolveGroup(variant=variant, why=WHY)
            _check(await self.forming.tell(head.id, DISSOLVE, order))
        dissolved = [{"model": each, "node": head.name} for head, each in groups]
        return {"model": normal(name), "dissolved": dissolved}

    def _measured(self, plan: GroupPlan) -> float | None:
        """Return tokens/s of the variant's group that serves now, as measured."""
        id_ = group_id(plan.model.variant)
        for each in self.state.predictive.fleet_model.of(
            each for each in self.state.current.candidates if each.engine.id == id_
        ):
            if each.learner.calibrated:
                return about(1 / each.learner.speed.decode)
        return None

    def _alone(self, plan: GroupPlan) -> Iterator[Json]:
        """Yield the best engine of each variant of the model on one machine."""
        models = self.state.predictive.fleet_model
        best: dict[str, tuple[float, EngineCandidate]] = {}
        for each in self.state.current.candidates:
            same = each.listed[0] == normal(plan.model.model)
            if not same or each.engine.group or state_of(each) is None:
                continue
            rate = 1 / models.speed(each).decode
            if rate > best.get(each.engine.variant, (0.0, None))[0]:
                best[each.engine.variant] = rate, each
        for variant, (rate, each) in sorted(best.items(), key=lambda item: -item[1][0]):
            yield {
                "variant": variant,
                "node": each.node,
                "state": state_of(each),
                "tokens_per_second": about(rate),
                "quicker": rate > plan.split.writes,
            }


def shown_plan(plan: GroupPlan) -> Json:
    """Return a plan as it is shown. Pure."""
    split, model = plan.split, plan.model
    return {
        "model": normal(model.variant),
        "engine": group_id(model.variant),
        "node": split.head.machine.name,
        "context": plan.context,
        "tokens_per_second": plan.expected.write,
        "prompt_tokens_per_second": plan.expected.read,
        "load_seconds": round(split.load_seconds, 1),
        "members": [
            _shown_share(each, model.layered.layers, head=each is split.head)
            for each in split.shares
        ],
        "unmeasured": split.unmeasured,
        "unknown_speed": [
            each.machine.name for each in split.shares if not each.machine.measured
        ],
        "why": plan.why,
    }


def _shown_share(share: Share, layers: int, *, head: bool) -> Json:
    return {
        "node": share.machine.name,
        "head": head,
        "layers": share.layers,
        "share": round(share.layers / layers, 4),
        "memory": int(share.memory),
        "computing_ms": round(1000 * (share.computes + share.output), 2),
        "network_ms": round(1000 * share.travels, 2),
    }


def _check(outcome: Outcome) -> None:
    """Raise the refusal of a head, in its words."""
    if isinstance(outcome, Refused):
        raise NotLoadable(outcome.why)
    if outcome is not None:
        raise NodeLost("the head did not take the order; try again in a few seconds")
