"""Calibration probes: measure the speed of engines that have just joined.

A probe takes one slot of an idle engine. It is cancelled as soon as a request has to
wait, unless its engine is held back until it is measured, and so serves no request.

A short probe shows the order of magnitude: 32 tokens in, 5 out, 0.1 s on a GPU and 2 s
on a Pi. One that returns quickly has mostly measured the network, and a longer one
follows: 128 in, 16 out. Without probes, an engine that is assumed to be slow would get
no request that could prove the contrary.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec
from msgspec import structs

from balancer.dialects.timings import Timings, timings_in
from balancer.discovery.node_client import NodeClient
from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.speed import (
    CALIBRATION_ANSWER,
    CALIBRATION_PROMPT,
    SMALLEST_DECODE,
    SMALLEST_PREFILL,
    Sample,
    Speed,
)
from balancer.state import BalancerState
from edgeserve.errors import EdgeserveError, NodeLost
from edgeserve.json_edit import edited
from edgeserve.runtime.background import Started, Tasks, background, declared

log = logging.getLogger(__name__)

ROUTE = "/completion"

QUICK_SECONDS = 0.5
"""A short probe that took less is followed by a long one."""

_WORD = " the"
"""One token in every common tokenizer."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe, by its tokens to read and to write."""

    prompt: int
    answer: int

    def body(self, variant: str) -> bytes:
        """Return the request; it leaves the prompt cache as it is."""
        return msgspec.json.encode(
            {
                "model": variant,
                "prompt": _WORD * self.prompt,
                "n_predict": self.answer,
                "cache_prompt": False,
                "ignore_eos": True,
                "stream": False,
            }
        )

    def seconds(self, speed: Speed) -> float:
        """Return how long it takes an engine of that speed."""
        reading = speed.prefill_seconds(self.prompt, 0)
        return speed.overhead + reading + speed.token_seconds(1) * (self.answer - 1)


SHORT = Probe(SMALLEST_PREFILL, SMALLEST_DECODE + 1)
LONG = Probe(CALIBRATION_PROMPT, CALIBRATION_ANSWER)


def sample(found: Timings) -> Sample:
    """Return the speed sample of a probe beside which nothing ran."""
    return Sample(
        cached=found.cached,
        prompt=found.prompt,
        prompt_ms=found.prompt_ms,
        predicted=found.predicted,
        predicted_ms=found.predicted_ms,
    )


SPREAD_SECONDS = 0.5
"""Several balancers see an engine join at once; their probes should not collide.

Probes of a quick engine are shorter, and so are spread less.
"""

LOOK_SECONDS = 1.0
PAUSE_PER_LOOK = 10.0
"""Times as long as a look took passes before the next one: in a fleet where something
changes all the time, looking at each engine takes at most a tenth of a core."""

PROBE_SECONDS = 60.0
AGAIN_SECONDS = 10.0
"""The pause after a probe that failed."""

CALIBRATOR = declared("calibrator")
CALIBRATE = declared("calibrate", "never")

LEAST_OVERHEAD, MOST_OVERHEAD = 0.001, 0.5
"""Seconds that a request may spend in the network."""


@asynccontextmanager
async def calibrating(state: BalancerState, nodes: NodeClient) -> AsyncGenerator[None]:
    """Probe engines for the length of the block."""
    async with background() as tasks:
        prober = _SpeedProber(state, nodes, tasks)
        state.queue.grows.subscribe(prober.yield_slots)
        tasks.start(CALIBRATOR, prober.look)
        yield


class _SpeedProber:
    def __init__(self, state: BalancerState, nodes: NodeClient, tasks: Tasks) -> None:
        self._state = state
        self._fleet_model = state.predictive.fleet_model
        self._nodes = nodes
        self._tasks = tasks
        self._changed = asyncio.Event()
        state.current.listen(self._changed.set)
        self._running: dict[EngineKey, Started] = {}
        self._not_before: dict[EngineKey, float] = {}

    async def look(self) -> None:
        """Probe engines that need it, now and soon after the fleet has changed."""
        while True:
            self._changed.clear()
            began = time.monotonic()
            for each in self._state.current.candidates:
                if self._needs_probe(each) and each.key not in self._running:
                    self._probe_soon(each)
            await asyncio.sleep(PAUSE_PER_LOOK * (time.monotonic() - began))
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._changed.wait()

    def _probe_soon(self, each: EngineCandidate) -> None:
        started = self._tasks.start(CALIBRATE, lambda: self._probe(each), each.node)
        started.task.add_done_callback(lambda _: self._running.pop(each.key, None))
        self._running[each.key] = started

    def yield_slots(self) -> None:
        """A request waits: cancel the probes whose slots it could have."""
        for key, task in self._running.items():
            if not self._held_back(key):
                task.cancel()

    def _held_back(self, key: EngineKey) -> bool:
        """Whether no request would go there now anyway."""
        return key in self._fleet_model.last_resort

    def _needs_probe(self, each: EngineCandidate) -> bool:
        model = self._fleet_model.get(each.key)
        return (
            model is not None
            and not model.learner.calibrated
            and each.unavailable is None
            and each.engine.kind != "server"  # not ours to load
            and "completion" in each.engine.abilities
            and self._state.slot_counts.busy(each.key) == 0
            and (self._state.queue.waiting == 0 or self._held_back(each.key))
            and time.monotonic() >= self._not_before.get(each.key, 0.0)
        )

    async def _probe(self, each: EngineCandidate) -> None:
        model = self._fleet_model.get(each.key)
        if model is None:
            return
        spread = min(SPREAD_SECONDS, 2 * SHORT.seconds(model.speed))
        await asyncio.sleep(spread * random.random())  # noqa: S311 - no secret
        if self._fleet_model.get(each.key) is not model or not self._needs_probe(each):
            return
        self._not_before[each.key] = time.monotonic() + AGAIN_SECONDS
        self._state.slot_counts.take(each.key, 1)
        slot = self._fleet_model.probe(each.key)
        self._fleet_model.recount(each.key, time.monotonic())
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._measure(each, model, slot)
            del self._not_before[each.key]
        except (EdgeserveError, TimeoutError) as error:
            log.info("%s was not measured: %s", each.node, error)
        finally:
            self._state.slot_counts.give_back(each.key, 1)
            self._fleet_model.probed(each.key)
            self._fleet_model.recount(each.key, time.monotonic())
            self._speed_learned()

    async def _measure(
        self, each: EngineCandidate, model: EngineModel, slot: int | None
    ) -> None:
        """Send a short probe, and a long one where that was quick."""
        seconds = await self._learn_from(each, model, slot, SHORT)
        if seconds < QUICK_SECONDS and not self._state.queue.waiting:
            await self._learn_from(each, model, slot, LONG)

    def _speed_learned(self) -> None:
        """Decide again which engines are held back, and which requests wait."""
        self._state.predictive.update(self._state.current.candidates)
        self._state.queue.changed()

    async def _learn_from(
        self, each: EngineCandidate, model: EngineModel, slot: int | None, probe: Probe
    ) -> float:
        """Send one probe and learn from it; returns the seconds that it took."""
        began, samples = time.monotonic(), model.learner.samples
        found = await self._answer(each, slot, probe)
        seconds = time.monotonic() - began
        if model.learner.samples == samples and not model.load.requests:
            _learn(model, found, seconds)
            self._speed_learned()
        return seconds

    async def _answer(
        self, each: EngineCandidate, slot: int | None, probe: Probe
    ) -> Timings:
        body = probe.body(each.engine.variant)
        if slot is not None:
            body = edited(body, put={"id_slot": slot})
        async with self._nodes.probe(each, ROUTE, body) as answer:
            body = await answer.read()
            found = timings_in(body)
            if answer.status != 200 or found is None:
                raise NodeLost(
                    f"its probe was answered {answer.status}: {body[:200]!r}"
                )
            return found


def _learn(model: EngineModel, found: Timings, seconds: float) -> None:
    """Take a probe's speed as it is: nothing ran beside it, and no better is known.

    What goes beyond the engine's own times is overhead.
    """
    learner = model.learner
    spent = (found.prompt_ms + found.predicted_ms) / 1000
    overhead = min(max(seconds - spent, LEAST_OVERHEAD), MOST_OVERHEAD)
    learner.guess = structs.replace(learner.guess, overhead=overhead)
    learner.begin(sample(found))
    model.stale = True
