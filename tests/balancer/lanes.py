"""Engines and requests for tests of the decision: short to write, easy to tell."""

from collections.abc import Sequence

from balancer.dispatch import Bound, Dispatch
from balancer.holdings import Held, Holdings
from balancer.lane import Lane, Timings
from balancer.learner import Learner
from balancer.prefix import Prompt, chain
from balancer.question import Ask
from balancer.speed import Speed

GPU = Speed(1 / 2000, 1e-8, 1 / 90, 0.08)
LAPTOP = Speed(1 / 150, 1e-7, 1 / 20, 0.3)
PI = Speed(1 / 25, 1e-6, 1 / 6, 0.3)

SYSTEM = b"s" * 2000
"""A system prompt of 500 tokens at four bytes each."""


def said(*parts: bytes) -> Prompt:
    return chain([SYSTEM, *parts])


def a_lane(
    holdings: Holdings,
    name: str,
    speed: Speed = LAPTOP,
    slots: int = 1,
    pins: bool = True,
) -> Lane:
    return Lane(name, "model", slots, Learner(speed), holdings, pins=pins)


class Fleet:
    """A dispatch over a few engines, and what the wire would tell it."""

    def __init__(self, room: int = 256, **speeds: tuple[Speed, int]) -> None:
        self.mind = Dispatch(self._eligible, room)
        self.lanes = {
            name: a_lane(self.mind.holdings, name, speed, slots)
            for name, (speed, slots) in speeds.items()
        }

    def _eligible(self, ask: Ask) -> Sequence[Lane]:  # noqa: ARG002 - all can
        return list(self.lanes.values())

    def asks(
        self,
        prompt: Prompt,
        now: float = 0.0,
        *,
        client: str = "",
        answer: float = 100.0,
        deadline: float | None = None,
        session: str = "",
        slots: int = 1,
    ) -> Ask:
        ask = Ask(
            "model",
            prompt,
            client,
            now,
            deadline=deadline,
            session=session,
            slots=slots,
            answer=answer,
        )
        assert self.mind.offer(ask, now) is None
        return ask

    def sends(self, prompt: Prompt, now: float = 0.0, answer: float = 100.0) -> Bound:
        self.asks(prompt, now, answer=answer)
        (bound,) = self.mind.assign(now)
        return bound

    def answers(self, bound: Bound, now: float, answer: int = 100) -> list[Bound]:
        """The engine does exactly what was predicted of it, and is done at `now`."""
        job, lane = bound.job, bound.lane
        cached = int(job.cached)
        fresh = max(1, round(job.tokens) - cached)
        self.mind.began(bound, job.started, fresh + cached, cached)
        reading = lane.speed.prefill_seconds(fresh, cached)
        lane.wrote(job, job.started + reading)
        writing = 1000 * lane.speed.token_seconds(1) * (answer - 1)
        timings = Timings(cached, fresh, 1000 * reading, answer, writing)
        self.mind.ended(bound, now, timings)
        return self.mind.assign(now)

    def holds(self, name: str, slot: int, prompt: Prompt, since: float = 0.0) -> None:
        place = self.lanes[name].places[slot]
        entry = Held(prompt, prompt.size / 4 + 100, 100.0, since, since)
        self.mind.holdings.put(place, entry)
