"""A server that tells nothing, in simulated time, behind the whole prediction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random

from balancer.dialects.prompt import chain
from balancer.dialects.timings import Timings
from balancer.fleet.engines import EngineCandidate
from balancer.fleet.slot_counts import SlotCounts
from balancer.persistence.learned import restore
from balancer.prediction.fleet_model import FleetModel
from balancer.prediction.prefix_cache import PrefixCacheIndex
from balancer.prediction.servers.width import MOST, LearnedWidth
from balancer.routing.decision import Send
from balancer.routing.predictive import PredictivePolicy
from balancer.routing.queued_request import QueuedRequest, ignore
from balancer.servers.report import GUESS, LAUNCH
from edgeserve.served import Served
from tests.balancer.building import a_candidate, a_request
from tests.fakes.reports import an_engine

LOOK_SECONDS = 2.0


class Asked:
    """One request, and what came of it."""

    def __init__(self, prompt: int, answer: int) -> None:
        self.prompt, self.answer = prompt, answer
        self.send: Send | None = None
        self.sent = self.first = 0.0
        self.predicted = 0.0


class QueueingServer:
    """Has `slots` and a queue; reads and writes at speeds that nobody is told.

    `slowdown`: how much each other answer slows a token. `noise`: the spread of all
    times, as a share. `assumed`: the width that the balancer begins with; `kept`: what
    it has kept over a restart.
    """

    def __init__(
        self,
        slots: int,
        *,
        assumed: int = 8,
        overhead: float = 0.08,
        read: float = 4000.0,
        write: float = 60.0,
        slowdown: float = 0.05,
        noise: float = 0.1,
        seed: int = 7,
        kept: bytes = b"",
    ) -> None:
        self.slots, self.overhead, self.slowdown = slots, overhead, slowdown
        self.read, self.write, self.noise = read, write, noise
        self.assumed, self.random = assumed, Random(seed)  # noqa: S311
        self.now = 0.0
        self.slot_counts = SlotCounts()
        self.fleet_model = FleetModel(PrefixCacheIndex(), self.slot_counts)
        self.policy = PredictivePolicy(
            self.slot_counts, self.fleet_model, lambda: self.now
        )
        if kept:
            restore(self.policy, kept)
        self.waiting: dict[QueuedRequest, Asked] = {}
        self.queue, self.working = deque[Asked](), 0
        self.widths = list[int]()
        self.done = list[Asked]()
        self._events = list[tuple[float, int, Callable[[], None]]]()
        self._numbers = count()
        self._look()

    @property
    def width(self) -> int:
        """How many it is thought to answer at once."""
        return self.known.width if self.known else self.assumed

    @property
    def known(self) -> LearnedWidth | None:
        """What was learned of its width."""
        return self.fleet_model.servers.of(self._candidate().key).width

    def at(self, seconds: float, then: Callable[[], None]) -> None:
        """Have something happen in so many seconds."""
        heappush(self._events, (self.now + seconds, next(self._numbers), then))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, then = heappop(self._events)
            then()
        self.now = end

    def ask(self, prompt: int, answer: int) -> Asked:
        """Send a request of so many tokens through the balancer."""
        words = b"%d" % next(self._numbers) * prompt * 4
        routing = a_request(prompt=chain([words[: prompt * 4]]))
        asked, request = Asked(prompt, answer), QueuedRequest(routing, ignore, self.now)
        assert self.policy.refusal(request, self.now, full=False) is None
        self.waiting[request] = asked
        self._assign()
        return asked

    def clients(self, number: int, think: float = 0.0, answer: int = 60) -> None:
        """Have so many clients ask again and again."""

        def again() -> None:
            prompt = self.random.choice((50, 200, 600))
            length = max(8, round(self.random.gauss(answer, answer / 4)))
            self.ask(prompt, length)

        self._again, self._think = again, think
        for _ in range(number):
            self.at(self.random.random(), again)

    _again: Callable[[], None] | None = None
    _think = 0.0

    def stop(self) -> None:
        """Have no client ask again."""
        self._again = None

    def _candidate(self) -> EngineCandidate:
        learned = self.fleet_model.servers.of(("gpu", "small")).width
        engine = an_engine(
            "small", slots=learned.width if learned else self.assumed, kind="server",
            launch=LAUNCH, expected=GUESS, served=Served(most=MOST), context=0,
        )  # fmt: skip
        return a_candidate("gpu", engine)

    def _look(self) -> None:
        each = self._candidate()
        self.widths.append(each.engine.slots)
        self.slot_counts.update([each])
        self.policy.update([each])
        self._assign()
        self.at(LOOK_SECONDS, self._look)

    def _assign(self) -> None:
        for request, decision in self.policy.assign(self.waiting, self.now):
            asked = self.waiting.pop(request)
            assert isinstance(decision, Send)
            asked.send, asked.sent = decision, self.now
            asked.predicted = decision.first_seconds or 0.0
            self.queue.append(asked)
        while self.queue and self.working < self.slots:
            self._serve(self.queue.popleft())

    def _serve(self, asked: Asked) -> None:
        self.working += 1
        reading = self.overhead + asked.prompt / self.read
        self.at(reading * self._noisy(), lambda: self._first(asked))

    def _first(self, asked: Asked) -> None:
        assert asked.send is not None
        asked.first = self.now
        asked.send.wrote()
        each = (1 + self.slowdown * (self.working - 1)) / self.write
        writing = (asked.answer - 1) * each * self._noisy()
        self.at(writing, lambda: self._end(asked))

    def _end(self, asked: Asked) -> None:
        assert asked.send is not None
        self.working -= 1
        self.done.append(asked)
        told = Timings(0, asked.prompt, 0.0, asked.answer, 0.0, tells_cached=False)
        asked.send.answered(told)
        self.policy.give_back(asked.send)
        if self._again is not None:
            self.at(self._think * self.random.random(), self._again)
        self._assign()

    def _noisy(self) -> float:
        return max(0.2, self.random.gauss(1.0, self.noise))
