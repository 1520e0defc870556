from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec
import pytest

from balancer.dialects.prompt import Prompt, chain
from balancer.dialects.timings import Timings
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.slot_counts import SlotCounts
from balancer.prediction.conditions import SECONDS, UNMEASURED
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.routing.decision import Decision, Refuse, RoutingRequest, Send, shown
from balancer.routing.predictive import PredictivePolicy
from balancer.routing.queued_request import QueuedRequest
from edgeserve.errors import FleetBusy
from edgeserve.reports.hardware import Cpu, Power
from edgeserve.wire import Expected
from tests.balancer.building import a_candidate, a_request
from tests.fakes.node import HARDWARE
from tests.fakes.reports import an_engine

QUICK, SLOW = Timings(0, 1000, 500.0, 51, 500.0), Timings(0, 1000, 20_000.0, 51, 9000.0)


@dataclass
class Setup:
    """A prediction over engines of known speed, at a time that tests set."""

    able: list[EngineCandidate]
    now: float = 100.0
    calibrates: bool = False
    notes: list[Decision] = field(default_factory=list[Decision])

    def __post_init__(self) -> None:
        self.slot_counts = SlotCounts()
        self.fleet_model = FleetModel(
            PrefixCacheIndex(), self.slot_counts, calibrates=self.calibrates
        )
        self.predict = PredictivePolicy(
            self.slot_counts, self.fleet_model, lambda: self.now
        )
        self.waiting: dict[QueuedRequest, None] = {}
        self.become(*self.able)

    def become(self, *able: EngineCandidate) -> None:
        self.able = list(able)
        self.slot_counts.update(able)
        self.predict.update(able)

    def enters(self, routing: RoutingRequest | None = None) -> QueuedRequest:
        request = QueuedRequest(routing or a_request(), self.notes.append, self.now)
        full = len(self.waiting) >= 2
        if refusal := self.predict.refusal(request, self.now, full=full):
            request.settle(refusal)
        else:
            self.waiting[request] = None
            self.looks()
        return request

    def looks(self) -> None:
        for request, decision in self.predict.assign(self.waiting, self.now):
            del self.waiting[request]
            request.settle(decision)

    def sends(self, routing: RoutingRequest | None = None) -> Send:
        decision = self.enters(routing).decision
        assert isinstance(decision, Send)
        return decision

    def answers(self, send: Send, timings: Timings, seconds: float = 1.0) -> None:
        send.progress(timings.cached + timings.prompt, timings.cached, 0)
        send.wrote()
        self.now += seconds
        send.answered(timings)
        self.predict.give_back(send)

    def teaches(self, node: str, timings: Timings) -> None:
        """Let one engine answer a request, without others."""
        others = self.able
        self.become(*(each for each in others if each.node == node))
        self.answers(self.sends(), timings, 30.0)
        self.become(*others)


def pair(**slots: int) -> Setup:
    return Setup([a_candidate(name, an_engine(slots=n)) for name, n in slots.items()])


def a_prompt(*words: str) -> Prompt:
    return chain([b"system" * 300, *(word.encode() * 40 for word in words)])


def test_what_was_learned_of_engines_decides() -> None:
    one, two = an_engine("small:Q4_1", slots=1), an_engine("small:Q8_0", slots=1)
    setup = Setup([a_candidate("pi", one), a_candidate("gpu", two)])

    setup.teaches("pi", SLOW)
    setup.teaches("gpu", QUICK)

    assert setup.sends(a_request(prompt=a_prompt("x"))).to.node == "gpu"


def test_a_conversation_comes_back_though_another_engine_is_idle() -> None:
    setup = pair(left=1, right=1)
    first = setup.sends(a_request(prompt=a_prompt("question")))
    setup.answers(first, Timings(0, 500, 1000.0, 20, 400.0))

    again = a_request(prompt=a_prompt("question", "answer", "more"))

    assert setup.sends(again).to.node == first.to.node


def test_slots_that_others_hold_are_left_to_them() -> None:
    setup = Setup([a_candidate("pi", an_engine(slots=2, busy=2))])

    assert setup.enters().decision is None


def test_a_named_slot_is_left_out_while_another_balancer_works_there() -> None:
    setup = pair(pi=2)
    assert setup.sends().slot is not None

    for busy in (2, 2):
        setup.become(a_candidate("pi", an_engine(slots=3, busy=busy)))
        setup.now += 2.0

    assert setup.sends().slot is None


@pytest.mark.parametrize(
    ("power", "load"),
    [(Power(on_mains=False, percent=9.0), 0.0), (Power(on_mains=True), 0.99)],
)
def test_a_machine_in_trouble_is_the_last_choice_and_not_excluded(
    power: Power, load: float
) -> None:
    cpu = Cpu(model="", physical_cores=4, logical_cores=4, load=load)
    hardware = msgspec.structs.replace(HARDWARE, power=power, cpu=cpu)
    weak = a_candidate("weak", hardware=hardware)
    setup = Setup([weak, a_candidate("strong", an_engine(slots=1))])

    first = setup.sends()
    assert first.to.node == "strong"
    assert setup.enters().decision is None  # it rather waits

    setup.become(weak)

    assert setup.sends().to.node == "weak"
    assert any("left alone" in str(each.reason) for each in first.verdicts)


def test_every_candidate_is_explained() -> None:
    unavailable = a_candidate("old", unavailable="its node is suspect", temporary=True)
    setup = Setup([a_candidate("left"), a_candidate("right"), unavailable])

    verdicts = {each["node"]: each for each in map(shown, setup.sends().verdicts)}

    assert verdicts["old"]["reason"] == "its node is suspect"
    assert verdicts["old"]["predicted"] is None
    assert [v["chosen"] for v in verdicts.values()].count(True) == 1
    assert verdicts["left"]["predicted"]["cost_seconds"] > 0


def test_a_full_queue_says_when_to_come_back() -> None:
    setup = pair(pi=1)
    setup.sends()
    for _ in range(2):
        assert setup.enters().decision is None

    refused = setup.enters().decision

    assert isinstance(refused, Refuse)
    assert isinstance(refused.error, FleetBusy)
    assert int(refused.error.headers()["retry-after"]) >= 1


def test_a_deadline_that_cannot_be_met_is_refused_once_speeds_are_known() -> None:
    setup = pair(pi=1)
    hasty = a_request(prompt=a_prompt("x"), deadline=setup.now + 0.001)
    assert isinstance(setup.enters(hasty).decision, Send)
    setup = pair(pi=1)
    setup.teaches("pi", SLOW)

    refused = setup.enters(
        a_request(prompt=a_prompt("x"), deadline=setup.now + 0.001)
    ).decision

    assert isinstance(refused, Refuse)


def test_an_engine_that_leaves_during_a_request_is_no_error() -> None:
    setup = pair(pi=1, gpu=1)
    send = setup.sends()
    setup.become(*(each for each in setup.able if each.key != send.to.key))

    setup.answers(send, QUICK)

    assert setup.slot_counts.busy(send.to.key) == 0
    assert setup.sends().to.key != send.to.key


def test_engines_of_very_many_slots_are_merely_counted() -> None:
    setup = pair(server=2048)

    assert setup.sends().first_seconds is None


def test_without_reported_times_the_stream_is_timed() -> None:
    setup = Setup([a_candidate("a")])
    send = setup.sends()

    setup.now += 2.0
    send.wrote()
    setup.now += 5.0
    send.answered(Timings(0, 1000, 0.0, 51, 0.0))
    setup.predict.give_back(send)

    (engine,) = setup.fleet_model.all()
    assert engine.speed.prefill_seconds(1000, 0) == pytest.approx(2.0, rel=0.01)
    assert engine.speed.token_seconds(1) == pytest.approx(0.1, rel=0.01)


def test_what_came_whole_and_untimed_teaches_no_speed() -> None:
    setup = Setup([a_candidate("a")])
    send = setup.sends()

    setup.now += 7.0
    send.answered(Timings(0, 1000, 0.0, 51, 0.0))
    setup.predict.give_back(send)

    (engine,) = setup.fleet_model.all()
    assert not engine.learner.calibrated


def test_nothing_is_kept_of_a_node_that_has_gone() -> None:
    setup = Setup([a_candidate("a"), a_candidate("b")])

    setup.predict.update([a_candidate("b")])

    assert [*setup.fleet_model._of_node] == ["b"]


def test_a_wrong_rate_is_not_taken_for_a_long_way() -> None:
    setup = Setup([a_candidate("a")])

    for _ in range(20):
        send = setup.sends()
        setup.now += 2.03
        send.wrote()
        setup.now += 1.0
        # Two seconds of it were reading, whatever had been predicted.
        send.answered(Timings(0, 40, 2000.0, 11, 1000.0))
        setup.predict.give_back(send)

    (engine,) = setup.fleet_model.all()
    assert engine.speed.overhead == pytest.approx(0.03, abs=0.005)


def test_a_new_engine_gets_nothing_until_measured_but_not_for_ever() -> None:
    fast, slow = expecting("fast", 2000.0), expecting("slow", 20.0)
    setup = Setup([], calibrates=True)

    setup.become(fast, slow)
    assert setup.fleet_model.last_resort == {slow.key: UNMEASURED}
    assert setup.sends().to == fast

    setup.now += SECONDS
    setup.become(fast, slow)
    assert not setup.fleet_model.last_resort


def test_an_unmeasured_engine_serves_where_no_other_does() -> None:
    fast, slow = expecting("fast", 2000.0), expecting("slow", 20.0)
    setup = Setup([], calibrates=True)

    setup.become(replace(fast, unavailable="it is away"), slow)

    assert not setup.fleet_model.last_resort
    assert setup.sends().to == slow


def expecting(name: str, reads: float) -> EngineCandidate:
    each = a_candidate(name)
    expected = Expected(read=reads, write=reads / 20)
    return replace(each, engine=msgspec.structs.replace(each.engine, expected=expected))


def test_an_engine_with_a_prompt_cache_is_followed_with_it() -> None:
    plain = an_engine(slots=2)
    launch = msgspec.structs.replace(plain.launch, cache_ram_mib=512)
    keeps = msgspec.structs.replace(plain, launch=launch)
    setup = Setup([a_candidate("nuc", keeps), a_candidate("pi", plain)])

    nuc, pi = sorted(setup.fleet_model.all(), key=lambda engine: engine.name)

    assert (pi.host, pi.pins) == (None, True)
    assert nuc.host is not None
    assert nuc.host.tokens > 1000
    assert not nuc.pins


def test_why_a_request_waits_for_a_kept_slot_is_said() -> None:
    setup = pair(left=1)
    setup.answers(setup.sends(a_request(prompt=a_prompt("question"))), SLOW, 30.0)
    returns = setup.predict.dispatcher.workload("small").returns
    for number in range(60):
        returns.answered(chain([b"%d" % number]), "", setup.now - 1.0)
        returns.arrived(chain([b"%d" % number, b"answer", b"more"]), setup.now - 0.7)

    request = setup.enters(a_request(prompt=chain([b"stranger" * 50])))

    assert request.decision is None
    (verdict,) = setup.predict.explain(request, setup.now)
    assert verdict.reason == "the best, but its slot is kept for the conversation in it"
