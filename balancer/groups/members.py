"""Members: which nodes could serve a model together, and how fast each is. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from balancer.fleet.members import Fleet, Node
from balancer.groups.pace import AS_EXPECTED, Paces
from balancer.groups.split import Member
from edgeserve.openai import normal
from edgeserve.orders.groups import LayeredModel
from edgeserve.wire import Ability, EngineReport

TEXT: tuple[Ability, ...] = ("chat", "completion")


@dataclass(frozen=True, kw_only=True)
class SplittableModel:
    """A variant that a group could serve; `holders` are the nodes with its file.

    `needed`: it fits on none of them, so that requests need a group.
    """

    model: str
    variant: str
    file: str
    layered: LayeredModel
    abilities: tuple[Ability, ...]
    created: int
    holders: tuple[str, ...]
    needed: bool
    reason: str = ""


def formed_groups(nodes: Iterable[Node]) -> Iterator[tuple[Node, EngineReport]]:
    """Yield the groups that heads have now, with their heads; also broken ones."""
    for node in nodes:
        for each in node.report.engines:
            if each.group and node.state in {"up", "suspect"}:
                yield node, each


def splittable(nodes: Iterable[Node]) -> dict[str, SplittableModel]:
    """Return what could be split, by the variant's name in normal spelling."""
    found: dict[str, SplittableModel] = {}
    nodes = list(nodes)
    alone = {
        normal(each.variant)
        for node in nodes
        if node.state in {"up", "suspect"}
        for each in node.report.engines
        if not each.group
    }
    for node in nodes:
        for name, each in _of_node(node):
            before = found.get(name)
            holders = (*before.holders, *each.holders) if before else each.holders
            found[name] = replace(
                each,
                created=max(each.created, before.created if before else 0),
                holders=holders,
                needed=name not in alone,
                reason=each.reason or (before.reason if before else ""),
            )
    return found


def _of_node(node: Node) -> Iterator[tuple[str, SplittableModel]]:
    for each in node.report.available:
        if each.layered is not None:
            yield (
                normal(each.variant),
                SplittableModel(
                    model=each.model,
                    variant=each.variant,
                    file=each.file,
                    layered=each.layered,
                    abilities=each.abilities or TEXT,
                    created=each.created,
                    holders=(node.id,),
                    needed=True,
                    reason=each.reason,
                ),
            )
    for engine in node.report.engines:
        if engine.layered is not None:
            yield (
                normal(engine.variant),
                SplittableModel(
                    model=engine.model,
                    variant=engine.variant,
                    file=engine.file,
                    layered=engine.layered,
                    abilities=engine.abilities,
                    created=engine.created,
                    holders=(node.id,),
                    needed=True,
                ),
            )


def machines(
    fleet: Fleet,
    model: SplittableModel,
    paces: Paces,
    *,
    avoided: Collection[str] = (),
    only: Collection[str] = (),
    head: str = "",
    cleared: bool = False,
) -> list[Member]:
    """Return which could take part; `cleared`: once all other groups have ended.

    `avoided` nodes were lost a moment ago; `only` these are meant, or all; `head` is
    the only one that may be it, if given.
    """
    found = list[Member]()
    for node in fleet.nodes:
        rpc, able = node.report.rpc, node.report.capacity
        if not rpc or able is None or node.state != "up" or node.id in avoided:
            continue
        if only and node.id not in only:
            continue
        pace = paces.get(node.id, AS_EXPECTED)
        heads = able.head and node.id in model.holders and head in {"", node.id}
        machine = Member(
            node=node.id,
            name=node.name,
            memory=float(able.memory + _working(node, model, every=cleared)),
            bytes_per_second=able.bytes_per_second * pace.writing,
            rpc=rpc,
            computing=able.computing * pace.reading,
            head=heads,
            worker=able.worker,
            measured=node.id in paces,
        )
        found.append(machine)
    return found


def _working(node: Node, model: SplittableModel, *, every: bool) -> int:
    """Return what groups took there as their worker: the model's own, or all.

    The model's own group ends first. What a head takes may leave, and is counted.
    """
    name = normal(model.variant)
    return sum(
        each.memory
        for each in node.report.workers
        if every or normal(each.variant) == name
    )
