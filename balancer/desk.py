"""What the parts of one balancer share: who is there, who waits, what has happened."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from balancer import conditions
from balancer.breaker import Breaker
from balancer.changes import Changes
from balancer.constraints import CAPS, Caps, caps_of
from balancer.current import Current
from balancer.doorkeeper import Doorkeeper
from balancer.holdings import Holdings
from balancer.lanes import Lanes
from balancer.least_busy import LeastBusy
from balancer.ledger import Ledger
from balancer.metrics import Metrics
from balancer.poison import Poison
from balancer.record import Records
from balancer.routing import Predict
from balancer.waiting import WaitingRoom
from edgeserve.config import BalancerSettings


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A balancer's state. `predict` is there whatever policy decides.

    `key` is that of all hashes of prompts; it is this process's own.
    """

    current: Current
    room: WaitingRoom
    predict: Predict
    ledger: Ledger
    breaker: Breaker
    doorkeeper: Doorkeeper
    records: Records
    metrics: Metrics
    caps: Caps = CAPS
    poison: Poison = field(default_factory=Poison)
    key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)


def desk(settings: BalancerSettings, say: Callable[[str], None]) -> Desk:
    """Set one up: a change in the fleet corrects the ledger, then wakes the queue."""
    judged, known_better = Changes(), Changes()
    breaker, ledger = Breaker(judged.notify), Ledger()
    current = Current(say, breaker.judged)
    predict = _predict(settings, ledger, known_better)
    simple = LeastBusy(lambda: current.candidates, ledger)
    room = WaitingRoom(
        predict if settings.policy == "predict" else simple,
        limit=settings.queue,
        seconds=settings.queue_seconds,
    )
    judged.subscribe(current.judge)
    known_better.subscribe(room.moved)
    current.listen(lambda: ledger.told(current.candidates, breaker.reserved))
    current.listen(lambda: predict.told(current.candidates))
    current.listen(room.changed)
    return Desk(
        current=current,
        room=room,
        predict=predict,
        ledger=ledger,
        breaker=breaker,
        doorkeeper=Doorkeeper(),
        records=Records(),
        metrics=Metrics(),
        caps=caps_of(settings),
    )


def _predict(
    settings: BalancerSettings, ledger: Ledger, known_better: Changes
) -> Predict:
    policy = conditions.Policy(
        on_battery=settings.on_battery,
        low_percent=settings.low_battery,
        owner_first=settings.owner_first,
    )
    lanes = Lanes(
        Holdings(),
        ledger.busy,
        policy=policy,
        left=ledger.left,
        calibrates=settings.calibrate,
    )
    return Predict(ledger, lanes, time.monotonic, known_better.notify)
