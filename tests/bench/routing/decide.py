"""How long one decision takes: `python -m tests.bench.routing.decide`.

32 engines of unlike speed with one to four slots, most of them holding conversations
that share four system prompts, half of them at work. The least of many rounds counts,
because other programs on the machine slow the rest.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

from balancer.dialects.prompt import Prompt, read
from balancer.prediction.cost import cheapest
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.running import RunningRequest
from balancer.prediction.speed import Speed
from balancer.routing.decision import Decision, RoutingRequest
from balancer.routing.dispatcher import Dispatcher
from balancer.routing.queued_request import QueuedRequest

ENGINES = 32
NOW = 100.0
TARGETS_US = {8 * 1024: 60, 128 * 1024: 400}

rng = random.Random(1)  # noqa: S311 - a benchmark


def body(size: int, system: int, words: str) -> bytes:
    """A chat of about `size` bytes: a shared system prompt, then turns of 700 bytes."""
    messages = [
        {"role": "system", "content": f"You are helper {system}. " + "xyz " * 350}
    ]
    left, turn = size - 1500, 0
    while left > 0:
        text = f"{words} {turn} " + "lorem ipsum " * 57
        role = "assistant" if turn % 2 else "user"
        messages.append({"role": role, "content": text[:left]})
        left, turn = left - len(text) - 40, turn + 1
    return json.dumps({"model": "m", "messages": messages}).encode()


def fleet() -> tuple[Dispatcher, list[EngineModel]]:
    """Build the engines with the content of their slots."""
    engines: list[EngineModel] = []
    dispatcher = Dispatcher(lambda _: engines)
    for number in range(ENGINES):
        rates = rng.choice([(25, 6), (120, 18), (400, 30), (2000, 90)])
        speed = Speed(
            prefill=1 / rates[0], attention=1e-7, decode=1 / rates[1], slowdown=0.3
        )
        slots = rng.choice([1, 2, 2, 4])
        engines.append(
            EngineModel(
                name=f"n{number}",
                model="m",
                slots=slots,
                learner=SpeedLearner(speed),
                cache_index=dispatcher.cache_index,
            )
        )
    for engine in engines:
        _fill(dispatcher, engine)
    engines.sort(key=lambda engine: engine.per_read)
    return dispatcher, engines


def _fill(dispatcher: Dispatcher, engine: EngineModel) -> None:
    for place in engine.places:
        if rng.random() < 0.85:
            prompt = _prompt(rng.randint(3000, 8000))
            content = CachedPrefix(
                prompt, prompt.size / 4 + 100, 100.0, rng.random() * NOW
            )
            dispatcher.cache_index.put(place, content)
    engine.advance(NOW)
    for slot in range(rng.randint(0, engine.slots)):
        engine.start(
            RunningRequest(
                prompt=_prompt(3000),
                slot=slot,
                tokens=700,
                cached=0,
                answer=150,
                started=NOW,
                reading=1.0,
            ),
            NOW,
        )


def _prompt(size: int) -> Prompt:
    return read(body(size, rng.randrange(4), str(rng.random())))


def microseconds(work: Callable[[], object], rounds: int = 60, each: int = 50) -> float:
    """The least mean of `rounds`."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(each):
            work()
        best = min(best, time.perf_counter() - begin)
    return best / each * 1e6


def unheard(decision: Decision) -> None:
    """Do nothing."""


def main() -> None:
    """Print a row for each size."""
    dispatcher, engines = fleet()
    slots = sum(engine.slots for engine in engines)
    idle = dispatcher.cache_index.idle.bit_count()
    print(f"{ENGINES} engines, {slots} slots, {idle} of them idle; µs")
    print(f"{'prompt':>9} {'read':>7} {'choose':>7} {'both':>7} {'target':>7}")
    for size, target in TARGETS_US.items():
        raw = body(size, 1, "seven")
        routing = RoutingRequest(
            model="m", ability="chat", prompt=read(raw), client="client"
        )
        request = QueuedRequest(routing, unheard, NOW)

        def decide(request: QueuedRequest = request) -> object:
            return cheapest(dispatcher.features(request, NOW + 1), engines)

        reading = microseconds(lambda raw=raw: read(raw))  # type: ignore[misc]
        choosing = microseconds(decide)
        both = reading + choosing
        print(f"{size:9} {reading:7.1f} {choosing:7.1f} {both:7.1f} {target:7}")


if __name__ == "__main__":
    main()
