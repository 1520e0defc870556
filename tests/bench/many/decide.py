"""How long one decision among many engines takes: `python -m tests.bench.many.decide`.

1,000 engines of one model, of four speeds that differ by some percent from machine to
machine, or all of one speed, with conversations that share four system prompts. Between
two decisions some requests start, write and end. Processor time of the thread for each
decision, the log's upkeep included.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

from balancer.dialects.prompt import read
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.large.search import find_cheapest, ranked
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.running import RunningRequest
from balancer.prediction.speed import Speed
from balancer.routing.decision import RoutingRequest
from balancer.routing.dispatcher import Dispatcher
from balancer.routing.queued_request import QueuedRequest
from tests.bench.routing.decide import body, unheard

ENGINES, DECISIONS = 1000, 2000
NOW = 100.0
WORK = 5.0
"""The mean work of a request in seconds, without which a late token costs nothing."""
rng = random.Random(1)  # noqa: S311 - a benchmark


def unlike() -> Speed:
    """Return the speed of one machine of many kinds."""
    read_rate, write_rate = rng.choice([(25, 6), (120, 18), (400, 30), (2000, 90)])
    noise = rng.uniform(0.95, 1.05)
    return Speed(
        prefill=noise / read_rate,
        attention=1e-7,
        decode=rng.uniform(0.95, 1.05) / write_rate,
        slowdown=0.3,
        overhead=rng.uniform(0.002, 0.006),
    )


def alike() -> Speed:
    """Return the speed that all machines have."""
    return Speed(prefill=1 / 400, attention=1e-7, decode=1 / 30, slowdown=0.3)


def fleet(
    speed: Callable[[], Speed], engines: int = ENGINES
) -> tuple[Dispatcher, list[EngineModel]]:
    """Build the engines with what their slots hold."""
    found: list[EngineModel] = []
    dispatcher = Dispatcher(lambda _: found)
    dispatcher.order.work = WORK
    found += [
        EngineModel(
            name=f"n{number}",
            model="m",
            slots=rng.choice([1, 2, 2, 4]),
            learner=SpeedLearner(speed()),
            cache_index=dispatcher.cache_index,
        )
        for number in range(engines)
    ]
    for engine in found:
        engine.advance(NOW)
        for place in engine.places:
            if rng.random() < 0.5:
                prompt = read(body(4000, rng.randrange(4), str(rng.random())))
                content = CachedPrefix(prompt, 1000, 100.0, rng.random() * NOW)
                dispatcher.cache_index.put(place, content)
    found.sort(key=lambda engine: engine.per_read)
    return dispatcher, found


def request(size: int) -> QueuedRequest:
    """Return a request of a new or a known conversation."""
    prompt = read(body(size, rng.randrange(4), str(rng.random())))
    routing = RoutingRequest(model="m", ability="chat", prompt=prompt, client="client")
    return QueuedRequest(routing, unheard, NOW)


def decisions(busy: float, speed: Callable[[], Speed]) -> tuple[list[float], float]:
    """Return the µs of each decision, and how many engines one looked at."""
    dispatcher, engines = fleet(speed)
    group, now = ranked(engines), NOW
    running: list[tuple[EngineModel, RunningRequest]] = []
    slots = sum(engine.slots for engine in engines)
    took, looked = list[float](), 0
    requests = [request(rng.choice([1500, 4000, 8000])) for _ in range(200)]
    count = int(slots * busy) + DECISIONS
    for _ in range(count):
        now += 0.001
        asked = rng.choice(requests)
        began = time.thread_time()
        features = dispatcher.features(asked, now)
        best, considered = find_cheapest(features, group, set())
        took.append((time.thread_time() - began) * 1e6)
        looked += len(considered)
        if best is not None and best.slot >= 0 and not best.wait:
            work = RunningRequest(
                prompt=asked.routing.prompt,
                slot=best.slot,
                tokens=best.tokens,
                cached=best.cached,
                answer=1e6,
                started=now,
                reading=best.read,
            )
            best.engine.start(work, now)
            running.append((best.engine, work))
        if len(running) > slots * busy:
            engine, work = running.pop(rng.randrange(len(running)))
            engine.wrote(work, now)
            engine.end(work, now, 100)
    return took[-DECISIONS:], looked / count


def main() -> None:
    """Print a row for each load."""
    print(f"{ENGINES} engines; µs of one decision")
    print(f"{'busy':>5} {'p50':>6} {'p99':>6} {'looked at':>10}")
    for speed in (unlike, alike):
        for busy in (0.0, 0.1, 0.5, 0.9):
            took, looked = decisions(busy, speed)
            cuts = statistics.quantiles(took, n=100)
            row = f"{busy:5.0%} {cuts[49]:6.0f} {cuts[98]:6.0f} {looked:10.0f}"
            print(f"{row}  {speed.__name__}")


if __name__ == "__main__":
    main()
