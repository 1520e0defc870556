"""Slot affinity: whether an idle slot waits for the conversation that it holds. Pure.

A request that takes the slot costs the conversation its content, which is then read
again: the engine loses that time, and the conversation waits as long for its answer.
Keeping the slot costs what it could do meanwhile:

    2 · saved · chance to return in time  >  seconds until then · price of the idle slot

The chance and the time are learned for each client and model. A slot is not kept from a
request that ranks before the conversation would if it went on now.
"""

from __future__ import annotations

from balancer.prediction.cost import CostEstimate
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.slot_match import RequestFeatures

LEAST_PRICE = 0.1
"""An idle slot has a price even where one more sequence slows an engine as much as it
adds: without it, a slot would be kept for as long as a pause can last."""


def is_worth_keeping(features: RequestFeatures, estimate: CostEstimate) -> bool:
    """Whether the idle slot of an estimate is worth more to its own conversation."""
    engine = estimate.engine
    if estimate.loss <= 0.0:
        return False
    content = features.cache_index.contents[engine.places[estimate.slot]]
    if content is None:
        return False
    saved = (content.tokens - min(estimate.cached, content.tokens)) * engine.per_read
    paused = features.now - content.since
    pauses = features.workload.returns.of(content.client)
    return pauses.gain(paused, 2 * saved, idle_price(engine)) > 0.0


def idle_price(engine: EngineModel) -> float:
    """Return the share of its work that it leaves undone for one more idle slot.

    All of it where nothing runs; beside other requests only what a batch of one more
    sequence would gain.
    """
    running, slowdown = engine.taken, engine.learner.speed.slowdown
    if not running:
        return 1.0
    without = running / (1 + slowdown * (running - 1))
    gained = 1 - without * (1 + slowdown * running) / (running + 1)
    return max(LEAST_PRICE, gained)
