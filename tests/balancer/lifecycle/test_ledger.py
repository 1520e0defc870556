from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from balancer.fleet.engines import NOT_LOADED, EngineCandidate
from balancer.health.loads import LoadFaults
from balancer.lifecycle.events import LifecycleEvents
from balancer.lifecycle.ledger import ORDER_SECONDS, LoadLedger
from balancer.lifecycle.orders import Refused, TryLater, understood
from balancer.lifecycle.placement import Load
from edgeserve.wire import EngineState
from tests.balancer.building import a_candidate
from tests.fakes.reports import an_engine

UP = frozenset(("pi",))


def an_absent() -> EngineCandidate:
    engine = an_engine(state="absent")
    return a_candidate(engine=engine, unavailable=NOT_LOADED, temporary=True)


@dataclass
class Setup:
    now: float = 0.0
    heard: list[str] = field(default_factory=list[str])
    ledger: LoadLedger = field(init=False)

    def __post_init__(self) -> None:
        self.faults = LoadFaults(lambda: None, lambda: self.now)
        self.events = LifecycleEvents()
        self.ledger = LoadLedger(
            self.events, self.faults, self.heard.append, lambda: 1000 + self.now
        )

    def see(self, *states: EngineState, up: frozenset[str] = UP, **fields: Any) -> None:
        for state in states:
            engine = an_engine(state=state, **fields)
            self.ledger.follow([a_candidate(engine=engine)], up, self.now)

    def order(self, seconds: float = 4.0) -> None:
        load = Load(to=an_absent(), why="3 requests wait for small", seconds=seconds)
        self.ledger.order(load, self.now)

    @property
    def kinds(self) -> list[str]:
        return [each.kind for each in self.events.latest()]


def test_a_load_is_told_with_its_reason_and_how_long_it_took() -> None:
    setup = Setup()
    setup.see("absent")
    setup.order()
    setup.now = 1.0
    setup.see("loading")
    setup.now = 6.5
    setup.see("ready")

    assert setup.heard == ["pi loads small:Q4_1: 3 requests wait for small"]
    assert setup.kinds == ["load_ordered", "loaded"]
    assert [each.seconds for each in setup.events.latest()] == [4.0, 6.5]
    assert setup.ledger.loaded_at(an_absent(), 9.0) == 6.5


def test_an_order_that_a_node_ignores_is_forgotten() -> None:
    setup = Setup()
    setup.see("absent")
    setup.order(seconds=4.0)
    setup.now = ORDER_SECONDS
    setup.see("absent")
    assert setup.ledger.ordered
    setup.now = ORDER_SECONDS + 8
    setup.see("absent")

    assert not setup.ledger.ordered
    assert not setup.ledger.active


def test_an_order_ends_with_its_node() -> None:
    setup = Setup()
    setup.see("absent")
    setup.order()
    setup.see("absent", up=frozenset())

    assert not setup.ledger.ordered


def test_a_load_that_fails_is_not_ordered_again_soon() -> None:
    setup = Setup()
    setup.see("absent")
    setup.order()
    setup.see("loading", "failed", reason="no such file")

    [judged] = setup.faults.judged([an_absent()])
    assert judged.unavailable == "not loaded here: no such file"
    assert setup.kinds == ["load_ordered", "load_failed"]


def test_a_node_that_would_load_it_again_is_believed() -> None:
    setup = Setup()
    setup.see("absent", "loading", "failed", "absent")

    [judged] = setup.faults.judged([an_absent()])
    assert judged.unavailable == NOT_LOADED


def test_an_engine_that_fails_to_restart_is_still_waited_for() -> None:
    setup = Setup()
    setup.see("ready", "failed", "loading", "failed")

    [judged] = setup.faults.judged([an_absent()])
    assert judged.unavailable == NOT_LOADED


def test_an_engine_that_left_is_told_with_the_reason_why_it_left() -> None:
    setup = Setup()
    setup.see("ready")
    setup.see("leaving", reason="idle for 300 s")
    setup.see("absent", reason="loads when it is asked for")

    [event] = setup.events.latest()
    assert (event.kind, event.reason) == ("unloaded", "idle for 300 s")


def test_an_engine_that_made_room_is_told_with_what_for() -> None:
    setup = Setup()
    large = an_engine("large:Q4_1", state="absent", evicts=("small:Q4_1",))
    setup.see("ready")
    setup.ledger.order(Load(to=a_candidate(engine=large), why="a test"), 0.0)
    setup.see("absent", reason="loads when it is asked for")

    event = setup.events.latest()[-1]
    assert (event.kind, event.reason) == ("unloaded", "large:Q4_1 needs its memory")


def test_what_was_there_from_the_start_is_no_event() -> None:
    setup = Setup()
    setup.see("ready", "busy", "ready")

    assert setup.kinds == []


BUSY = b'{"error": {"code": "engines_busy", "message": "they work"}}'
FULL = b'{"error": {"code": "does_not_fit", "message": "it is too large"}}'


@pytest.mark.parametrize(
    ("status", "headers", "body", "meaning"),
    [
        (202, {}, b"{}", None),
        (409, {"retry-after": "7"}, BUSY, TryLater(7.0, busy=True)),
        (409, {"retry-after": "soon"}, BUSY, TryLater(2.0, busy=True)),
        (503, {}, b"", TryLater(2.0)),
        (409, {}, FULL, Refused("it is too large", short=True)),
        (404, {}, b"", Refused("its node answered 404")),
    ],
)
def test_an_answer_says_whether_to_ask_again(
    status: int, headers: dict[str, str], body: bytes, meaning: object
) -> None:
    assert understood(status, headers, body) == meaning
