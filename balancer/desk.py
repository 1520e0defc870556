"""What the parts of one balancer share: who is there, who waits, what has happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from balancer.current import Current
from balancer.doorkeeper import Doorkeeper
from balancer.ledger import Ledger
from balancer.metrics import Metrics
from balancer.record import Records
from balancer.schedule import choose
from balancer.waiting import WaitingRoom
from edgeserve.config import BalancerSettings


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A balancer's state; nothing of it outlives the process."""

    current: Current
    room: WaitingRoom
    doorkeeper: Doorkeeper
    records: Records
    metrics: Metrics


def desk(settings: BalancerSettings, say: Callable[[str], None]) -> Desk:
    """Set one up: a change in the fleet corrects the ledger, then wakes the room."""
    current, ledger = Current(say), Ledger()
    room = WaitingRoom(
        lambda need, busy: choose(current.candidates, need, busy),
        ledger,
        limit=settings.queue,
        seconds=settings.queue_seconds,
    )
    current.listen(lambda: ledger.told(current.candidates))
    current.listen(room.changed)
    return Desk(
        current=current,
        room=room,
        doorkeeper=Doorkeeper(),
        records=Records(),
        metrics=Metrics(),
    )
