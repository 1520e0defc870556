"""Two models and memory for one, in virtual time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from balancer.fleet.engines import NOT_LOADED, EngineCandidate, EngineKey
from balancer.lifecycle.demand import Demand, demands
from balancer.lifecycle.placement import Outlook, plan, wanted
from balancer.lifecycle.swap import Resident
from balancer.prediction.speed import typical
from balancer.routing.queued_request import QueuedRequest, ignore
from edgeserve.wire import EngineState
from tests.balancer.building import a_candidate, a_request
from tests.fakes.reports import an_engine

STEP = 0.05
LOAD, SLOTS, SERVICE, PATIENCE = 1.0, 2, 0.5, 300.0


@dataclass
class OneRoom:
    """A node whose memory holds one engine of two."""

    loaded: str = ""
    now: float = 1000.0
    at_once: int = 10_000
    loads: int = 0
    waits: dict[str, list[float]] = field(default_factory=lambda: {"a": [], "b": []})
    coming: deque[tuple[float, str]] = field(default_factory=deque[tuple[float, str]])
    waiting: list[QueuedRequest] = field(default_factory=list[QueuedRequest])
    running: list[float] = field(default_factory=list[float])
    loading: tuple[str, float] | None = None
    leaving_for: str = ""
    since: float = 0.0
    worked: float = 0.0

    def run(self, requests: Iterable[tuple[float, str]]) -> None:
        start = self.now
        self.coming = deque((start + at, model) for at, model in requests)
        while self.coming or self.waiting or self.running:
            self.now += STEP
            assert self.now < start + 3600
            self.step()

    def step(self) -> None:
        if self.running:
            self.worked = self.now
        self.running = [end for end in self.running if end > self.now]
        self._arrive()
        if self.loading and self.now >= self.loading[1]:
            self.loaded, self.loading, self.since = self.loading[0], None, self.now
        if self.leaving_for and not self.running:
            self._load(self.leaving_for)
        self._serve()
        self._look()

    def _arrive(self) -> None:
        while self.coming and self.coming[0][0] <= self.now:
            if len(self.waiting) + len(self.running) >= self.at_once:
                return
            model = self.coming.popleft()[1]
            request = QueuedRequest(a_request(model), ignore, self.now)
            self.waiting.append(request)

    def _serve(self) -> None:
        for request in tuple(self.waiting):
            free = len(self.running) < SLOTS and not self.leaving_for
            if free and request.routing.model == self.loaded:
                self.waiting.remove(request)
                self.running.append(self.now + SERVICE)
                self.waits[self.loaded].append(self.now - request.arrived)

    def _load(self, model: str) -> None:
        self.loaded, self.leaving_for = "", ""
        self.loading = model, self.now + LOAD
        self.loads += 1

    def _state(self, model: str) -> EngineState:
        if self.loading and self.loading[0] == model:
            return "loading"
        if self.loaded != model:
            return "absent"
        return "leaving" if self.leaving_for else "ready"

    def _candidate(self, model: str) -> EngineCandidate:
        state = self._state(model)
        in_the_way = self.loaded or (self.loading and self.loading[0]) or ""
        evicts = (in_the_way,) if state == "absent" and in_the_way else ()
        engine = an_engine(
            model, id=model, state=state, load_seconds=LOAD, evicts=evicts
        )
        away = None if state == "ready" else NOT_LOADED
        return a_candidate("pi", engine, unavailable=away, temporary=away is not None)

    def _look(self) -> None:
        candidates = [self._candidate(model) for model in "ab"]
        engines = {each.key: each for each in candidates}
        found = demands(self.waiting, candidates)

        def resident(key: EngineKey) -> Resident:
            return self._resident(engines[key], found)

        for demand in found:
            ordered = {("pi", self.leaving_for): 1.0} if self.leaving_for else {}
            outlook = Outlook(
                now=self.now,
                engines=engines,
                up=frozenset(("pi",)),
                ordered=ordered,
                held=frozenset(),
                busy=frozenset(),
                resident=resident,
                speed=lambda _: typical(1000, 100, on_gpu=False),
                patience=PATIENCE,
            )
            if load := plan(demand, outlook).load:
                if load.drain:
                    self.leaving_for = load.to.engine.id
                else:
                    self._load(load.to.engine.id)
                return

    def _resident(self, to: EngineCandidate, found: list[Demand]) -> Resident:
        here = to.engine.id == self.loaded
        return Resident(
            to=to,
            busy=here and bool(self.running),
            wanted=wanted(found, to.key),
            worked=self.worked if here else 0.0,
            loaded=self.now if to.engine.state == "loading" else self.since,
            drains=max(self.running, default=self.now) - self.now,
        )


MIXED = [(0.0, model) for _ in range(60) for model in "ab"]


def test_what_is_sent_at_once_makes_one_load_a_model() -> None:
    room = OneRoom()
    room.run(MIXED)

    assert room.loads == 2


def test_what_is_sent_at_once_makes_one_load_where_one_model_is_loaded() -> None:
    room = OneRoom(loaded="a")
    room.run(MIXED)

    assert room.loads == 1


def test_six_clients_that_alternate_make_nearly_the_fewest_loads() -> None:
    """The fewest: one model is served until all six wait for the other."""
    room = OneRoom(loaded="a", at_once=6)
    room.run(MIXED)

    assert room.loads <= 1.5 * fewest(6)


def fewest(at_once: int) -> int:
    coming = deque(model for _, model in MIXED)
    inside, loaded, loads = [coming.popleft() for _ in range(at_once)], "a", 0
    while inside:
        if loaded not in inside:
            loaded, loads = inside[0], loads + 1
        inside.remove(loaded)
        if coming:
            inside.append(coming.popleft())
    return loads


def test_a_model_that_is_asked_for_rarely_does_not_evict_the_other_each_time() -> None:
    often = [(0.4 * number, "a") for number in range(500)]
    rarely = [(1.0 * number, "b") for number in range(200)]
    room = OneRoom(loaded="a")
    room.run(sorted(often + rarely))

    assert room.loads <= 2 * 200 / 10 + 1
    assert max(room.waits["b"]) < 40
    assert max(room.waits["a"]) < 40
