"""A free slot is given to what waits, and a slot that others have is not."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.routing.decision import Send
from balancer.routing.predictive import PredictivePolicy
from balancer.routing.queued_request import QueuedRequest, ignore
from tests.balancer.building import a_candidate, a_request
from tests.fakes.reports import an_engine

SLOTS = 4
NODES = ("left", "right")


@dataclass
class World:
    """Two engines, what others have of their slots, and requests that wait or run."""

    able: dict[str, EngineCandidate] = field(
        default_factory=lambda: {
            name: a_candidate(name, an_engine(slots=SLOTS)) for name in NODES
        }
    )
    reserved: dict[EngineKey, int] = field(default_factory=dict[EngineKey, int])
    waiting: dict[QueuedRequest, None] = field(
        default_factory=dict[QueuedRequest, None]
    )
    running: list[Send] = field(default_factory=list[Send])
    now: float = 100.0

    def __post_init__(self) -> None:
        self.counts = SlotCounts()
        self.model = FleetModel(PrefixCacheIndex(), self.counts)
        self.policy = PredictivePolicy(self.counts, self.model, lambda: self.now)
        self.changed()

    def changed(self) -> None:
        able = tuple(self.able.values())
        self.counts.update(able, dict(self.reserved))
        self.policy.update(able)
        self.looks()

    def asks(self) -> None:
        request = QueuedRequest(a_request(), ignore, self.now)
        assert self.policy.refusal(request, self.now, full=False) is None
        self.waiting[request] = None
        self.looks()

    def looks(self) -> None:
        self.now += 1.0
        for request, decision in self.policy.assign(self.waiting, self.now):
            assert isinstance(decision, Send)
            del self.waiting[request]
            self.running.append(decision)

    def ends(self, which: int, *, left: bool) -> None:
        if self.running:
            send = self.running.pop(which % len(self.running))
            self.policy.give_back(send, left=left)
            self.looks()

    def reports(self, node: str, busy: int, restarts: bool) -> None:
        each = self.able[node]
        epoch = each.engine.epoch + restarts
        engine = an_engine(slots=SLOTS, busy=busy, epoch=epoch)
        self.able[node] = replace(each, engine=engine)
        self.changed()

    def reserves(self, node: str, slots: int) -> None:
        """Let a breaker hold slots back; the node says nothing meanwhile."""
        self.reserved[self.able[node].key] = slots
        if not slots:
            del self.reserved[self.able[node].key]
        self.changed()

    def free(self, node: str) -> int:
        return SLOTS - self.counts.busy(self.able[node].key)


NODE, SOME = st.sampled_from(NODES), st.integers(0, SLOTS)
EVENTS = st.one_of(
    st.tuples(st.just("asks")),
    st.tuples(st.just("ends"), st.integers(0, 99), st.booleans()),
    st.tuples(st.just("reports"), NODE, SOME, st.booleans()),
    st.tuples(st.just("reserves"), NODE, SOME),
)


@given(st.lists(EVENTS, max_size=40))
def test_no_request_waits_while_a_slot_is_free_and_none_gets_a_taken_one(
    events: list[tuple[str, int, bool]],
) -> None:
    world = World()
    for name, *rest in events:
        before = {node: world.free(node) for node in NODES}
        ran = len(world.running)
        if name == "ends":
            world.ends(rest[0], left=bool(rest[1]))
        else:
            getattr(world, name)(*rest)
        free = {node: world.free(node) for node in NODES}

        if world.waiting:
            assert max(free.values()) <= 0, "a request waits, and a slot is free"
        if name == "asks" and len(world.running) > ran:
            assert max(before.values()) > 0, "a slot was given that was taken"
        for each in world.able.values():
            engine = world.model.get(each.key)
            assert engine is not None
            taken = world.counts.busy(each.key) - engine.load.slots
            assert engine.foreign == max(0, taken)


@pytest.mark.parametrize("others", ["balancers", "breaker"])
def test_one_look_gives_no_more_slots_than_others_leave(others: str) -> None:
    world = World()
    for node in NODES:
        world.reserves(node, SLOTS)
    for _ in range(4):
        world.asks()

    left = world.able["left"]
    if others == "balancers":
        world.able["left"] = replace(left, engine=an_engine(slots=SLOTS, busy=3))
    world.reserved[left.key] = 3 * (others == "breaker")
    world.changed()

    assert (len(world.running), len(world.waiting)) == (1, 3)


def test_an_engine_that_recovers_without_a_word_gets_what_waits() -> None:
    world = World()
    for node in NODES:
        world.reserves(node, SLOTS)
    world.reports("left", 0, True)
    world.asks()

    world.reserves("left", SLOTS - 1)

    assert [each.to.node for each in world.running] == ["left"]
