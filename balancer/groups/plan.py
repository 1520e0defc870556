"""Group plan: which nodes serve a model together, and the arithmetic in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from balancer.fleet.members import Fleet
from balancer.groups.members import SplittableModel
from balancer.groups.split import Links, Member, Share, Split, Wanted, best_split
from edgeserve.orders.groups import (
    FormGroup,
    GroupMember,
    GroupWorker,
    group_id,
    understand,
)
from edgeserve.wire import EngineReport, Expected, Launch

CONTEXTS = (8192, 4096, 2048, 1024)
"""Tokens of a group's context, the longest that the machines hold; less where the model
was trained for less."""

SLOTS = 1
"""Answers at once: memory is what a group lacks."""

PIECE = 512


@dataclass(frozen=True, kw_only=True)
class GroupPlan:
    """A group that can be formed. `expected` are tokens/s, `why` is the arithmetic."""

    model: SplittableModel
    split: Split
    context: int
    why: str

    @property
    def head(self) -> str:
        """The node that is asked to form it."""
        return self.split.head.machine.node

    @property
    def expected(self) -> Expected:
        """Tokens/s of one stream."""
        return Expected(read=about(self.split.reads), write=about(self.split.writes))


@dataclass(frozen=True, kw_only=True)
class NoGroup:
    """No group can serve a model; `holder` has its file, `why` is the arithmetic."""

    model: SplittableModel
    holder: str
    why: str


def plan_group(
    model: SplittableModel, machines: Sequence[Member], links: Links
) -> GroupPlan | NoGroup:
    """Return the quickest group with the longest context that it can have."""
    limit = model.layered.context or CONTEXTS[0]
    contexts = sorted({min(each, limit) for each in CONTEXTS}, reverse=True)
    for context in contexts:
        wanted = Wanted(model=model.layered, tokens=context * SLOTS)
        if split := best_split(wanted, machines, links):
            return GroupPlan(
                model=model, split=split, context=context, why=said(split, wanted)
            )
    wanted = Wanted(model=model.layered, tokens=contexts[-1] * SLOTS)
    return NoGroup(model=model, holder=model.holders[0], why=lacking(wanted, machines))


def said(split: Split, wanted: Wanted) -> str:
    """Say which machine computes what, and what a token takes."""
    parts = [_said(each, wanted.model.layers) for each in split.shares]
    text = (
        f"{'; '.join(parts)}; {_ms(1 / split.writes)} a token,"
        f" {about(split.writes):g} tokens/s"
    )
    if split.unmeasured:
        text += f" (the network to {_and(split.unmeasured)} is not measured yet)"
    return text


def _said(share: Share, layers: int) -> str:
    times = _ms(share.computes + share.output)
    if share.travels:
        times += f" and {_ms(share.travels)} on the way"
    return (
        f"{share.machine.name} {share.layers} of {layers} layers"
        f" ({_gb(share.memory)}, {times})"
    )


def lacking(wanted: Wanted, machines: Sequence[Member]) -> str:
    """Say why there is no group: what is needed, and what is there."""
    needs = f"it needs {_gb(wanted.total)}, and as a group"
    if not machines:
        return f"{needs} machines whose llama.cpp has RPC: none has"
    heads = [each for each in machines if each.head]
    if not heads:
        names = _and([each.name for each in machines])
        return f"{needs} a head that has its file; {names} cannot be that"
    members = [m for m in machines if m.head or any(_joins(h, m) for h in heads)]
    if len(members) == 1:
        name = members[0].name
        return (
            f"{needs} another machine that is up and has the same llama.cpp as {name}"
        )
    return _short(needs, wanted, members)


def _joins(head: Member, worker: Member) -> bool:
    return worker.worker and understand(head.rpc, worker.rpc)


def _short(needs: str, wanted: Wanted, members: Sequence[Member]) -> str:
    """Say that what there is does not suffice."""
    free = ", ".join(f"{each.name} {_gb(each.memory)}" for each in members)
    kept = wanted.head
    if all(each.memory < kept for each in members if each.head):
        return (
            f"{needs} {_gb(kept)} on the machine that has its file, for what cannot be"
            f" split; free are: {free}"
        )
    each = _gb(wanted.worker)
    total = _gb(sum(each.memory for each in members))
    return (
        f"{needs} {each} more for each further machine; the {len(members)} machines"
        f" that can take part have {total} free: {free}"
    )


def form_order(plan: GroupPlan, fleet: Fleet, why: str) -> FormGroup:
    """Return what its head is asked to do. Shares make 1 in all."""
    layers = plan.model.layered.layers
    return FormGroup(
        variant=plan.model.variant,
        share=plan.split.head.layers / layers,
        workers=tuple(
            GroupWorker(
                node=each.machine.node,
                name=each.machine.name,
                urls=urls(fleet, each.machine.node),
                share=each.layers / layers,
                memory=int(each.memory),
            )
            for each in plan.split.workers
        ),
        slots=SLOTS,
        context=plan.context,
        why=why,
        reads=plan.expected.read,
        writes=plan.expected.write,
        load_seconds=round(plan.split.load_seconds, 1),
    )


def urls(fleet: Fleet, node: str) -> tuple[str, ...]:
    """Return where a node was seen, the address that answers first."""
    found = fleet.node(node)
    if found is None:
        return ()
    origins = [found.origin]
    for key in found.addresses:
        origins += fleet.addresses[key].origins
    return tuple(dict.fromkeys(each.url for each in origins))


def engine_of(plan: GroupPlan) -> EngineReport:
    """Return the engine that the group would be: absent until it is asked for."""
    shares = plan.split.shares
    return EngineReport(
        id=group_id(plan.model.variant),
        model=plan.model.model,
        variant=plan.model.variant,
        file=plan.model.file,
        state="absent",
        reason=f"it fits on no single machine; a group would be: {plan.why}",
        slots=SLOTS,
        context=plan.context,
        abilities=plan.model.abilities,
        kind="native",
        launch=_launch(plan.context),
        expected=plan.expected,
        memory=int(shares[0].memory),
        load_seconds=round(plan.split.load_seconds, 1),
        created=plan.model.created,
        group=tuple(
            GroupMember(
                node=each.machine.node,
                name=each.machine.name,
                share=each.layers / plan.model.layered.layers,
                head=each is shares[0],
            )
            for each in shares
        ),
        layered=plan.model.layered,
    )


def no_engine_of(none: NoGroup) -> EngineReport:
    """Return the engine that there cannot be, so that requests are told why."""
    return EngineReport(
        id=group_id(none.model.variant),
        model=none.model.model,
        variant=none.model.variant,
        file=none.model.file,
        state="absent",
        reason=none.why,
        slots=SLOTS,
        context=none.model.layered.context,
        abilities=none.model.abilities,
        kind="native",
        launch=_launch(none.model.layered.context),
        created=none.model.created,
        layered=none.model.layered,
    )


def _launch(context: int) -> Launch:
    return Launch(slots=SLOTS, context=context, batch=PIECE, threads=1)


def about(rate: float) -> float:
    """Return a rate to two digits: no more is known."""
    return float(f"{rate:.2g}")


def _gb(bytes_: float) -> str:
    return (
        f"{max(0.0, bytes_) / 1e9:.2g} GB"
        if bytes_ < 1e10
        else f"{bytes_ / 1e9:.1f} GB"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{1000 * seconds:.0f} ms"


def _and(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
