from __future__ import annotations

import pytest

from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.energy.choice import PREFERENCES, finder
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.prediction.speed import Sample
from balancer.routing.affinity import is_worth_keeping
from balancer.routing.decision import Send, shown
from balancer.routing.moving import Remaining
from balancer.routing.predictive import PredictivePolicy
from balancer.routing.queued_request import QueuedRequest
from edgeserve.wire import Expected
from tests.balancer.building import a_candidate, a_request, unheard
from tests.fakes.reports import an_engine

NOW = 100.0


def a_policy(prefer: str) -> PredictivePolicy:
    """A policy over a fast engine that takes much, and a slower one that does not."""
    slot_counts = SlotCounts()
    model = FleetModel(PrefixCacheIndex(), slot_counts)
    find = finder(prefer, is_worth_keeping)
    policy = PredictivePolicy(slot_counts, model, lambda: NOW, find=find)
    speeds = {
        "gpu": Expected(read=2000, write=80),
        "mini": Expected(read=600, write=40),
    }
    able = [a_candidate(name, an_engine(expected=e)) for name, e in speeds.items()]
    slot_counts.update(able)
    policy.update(able)
    for each, watts in zip(model.all(), (300.0, 30.0), strict=True):
        each.watts = watts
        decode = 1000 / speeds[each.name.split()[0]].write
        sample = Sample(
            cached=0, prompt=500, prompt_ms=300, predicted=50, predicted_ms=50 * decode
        )
        each.learner.learn(sample)
    return policy


def sent(policy: PredictivePolicy) -> Send:
    request = QueuedRequest(a_request(), unheard, NOW)
    assert policy.refusal(request, NOW, full=False) is None
    ((_, decision),) = policy.assign([request], NOW)
    assert isinstance(decision, Send)
    return decision


@pytest.mark.parametrize(("prefer", "node"), [("speed", "gpu"), ("energy", "mini")])
def test_the_preference_decides_and_why_names_the_joules(
    prefer: str, node: str
) -> None:
    send = sent(a_policy(prefer))
    rows = {each["node"]: each for each in map(shown, send.verdicts)}

    assert send.to.node == node
    assert all(each["predicted"]["joules"] > 0 for each in rows.values())
    if prefer == "energy":
        assert rows["gpu"]["reason"].startswith("takes ")
        assert "the chosen one" in rows["gpu"]["reason"]


def test_an_answer_is_not_moved_where_it_takes_more_unless_it_is_too_late() -> None:
    quick, frugal = a_policy("speed"), a_policy("energy")
    bound = PREFERENCES["energy"]
    soon, late = Remaining(6.0, 100.0, 80.0), Remaining(60.0, 100.0, 80.0)

    assert quick.move(a_request(), soon) is not None
    assert frugal.move(a_request(), soon) is None
    assert frugal.move(a_request(), late) is not None
    assert late.seconds > bound.seconds
