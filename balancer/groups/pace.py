"""Pace: how fast machines were measured to be, against what they expect. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from balancer.fleet.engines import EngineCandidate
from balancer.fleet.members import Fleet
from balancer.groups.split import UNMEASURED, Links, hop
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.learning import speed_key
from balancer.prediction.speed import expected_speed

LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Pace:
    """By what the speed that a node expects of itself is to be multiplied."""

    writing: float = 1.0
    reading: float = 1.0


AS_EXPECTED = Pace()

Paces = Mapping[str, Pace]
"""Node → its pace, by what its engines were measured to do."""


def paces(candidates: Iterable[EngineCandidate], models: FleetModel) -> dict[str, Pace]:
    """Return how the nodes' own engines were measured, against what they expected.

    Of each node the largest engine counts: it is the most like a larger model.
    """
    largest: dict[str, EngineCandidate] = {}
    for each in candidates:
        engine = each.engine
        if engine.expected is None or engine.group or not _is_measured(each, models):
            continue
        if each.node_id not in largest or engine.memory > (
            largest[each.node_id].engine.memory
        ):
            largest[each.node_id] = each
    return {node: _pace(each, models) for node, each in largest.items()}


def group_paces(
    fleet: Fleet,
    candidates: Iterable[EngineCandidate],
    models: FleetModel,
    links: Links,
) -> dict[str, Pace]:
    """Return how the members of groups were measured together, each as all of them.

    What their links take is no machine's fault, and left out.
    """
    found: dict[str, Pace] = {}
    for each in candidates:
        engine = each.engine
        if not engine.group or engine.state == "absent" or engine.layered is None:
            continue
        if not _is_measured(each, models):
            continue
        travels = sum(
            hop(engine.layered, links.get((each.node_id, m.node)) or UNMEASURED)
            for m in engine.group
            if not m.head and (each.node_id, m.node) in links
        )
        computes = sum(_computes(each, fleet))
        measured = models.speed(each).decode - travels
        if computes > 0 and measured > 0:
            pace = Pace(writing=computes / measured)
            found.update(dict.fromkeys((m.node for m in engine.group), pace))
    return found


def _computes(group: EngineCandidate, fleet: Fleet) -> Iterator[float]:
    """Yield the seconds of a token that each member expects of itself."""
    model = group.engine.layered
    for member in group.engine.group if model else ():
        node = fleet.node(member.node)
        if node is None or node.report.capacity is None or model is None:
            continue
        bytes_ = model.layers * member.share * model.layer_bytes
        bytes_ += model.rest_bytes / 2 if member.head else 0.0
        yield bytes_ / max(1.0, node.report.capacity.bytes_per_second)


def _is_measured(each: EngineCandidate, models: FleetModel) -> bool:
    guess = expected_speed(each.engine)
    return models.speeds.learner(speed_key(each), guess).calibrated


def _pace(each: EngineCandidate, models: FleetModel) -> Pace:
    expected, speed = each.engine.expected, models.speed(each)
    if expected is None:
        return AS_EXPECTED
    return Pace(
        writing=1 / max(LEAST, speed.decode * expected.write),
        reading=1 / max(LEAST, speed.prefill * expected.read),
    )
