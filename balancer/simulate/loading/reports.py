"""Reports of simulated machines, as the balancer's decisions about loads read them."""

from __future__ import annotations

from collections.abc import Sequence

from balancer.fleet.engines import EngineCandidate, EngineKey
from balancer.lifecycle.demand import Demand
from balancer.lifecycle.placement import Outlook, drain_seconds, wanted
from balancer.lifecycle.swap import Resident
from balancer.prediction.engine_model import EngineModel
from balancer.simulate.loading.memory import HostMemory, State
from edgeserve.http.types import Origin
from edgeserve.wire import EngineReport, EngineState, Launch

PATIENCE = 300.0
"""The default of a balancer's `queue_seconds`."""

GIB = 2**30

STATES: dict[State, EngineState] = {
    "absent": "absent",
    "waiting": "loading",
    "loading": "loading",
    "ready": "ready",
    "leaving": "leaving",
}


def candidates(memory: HostMemory, now: float) -> tuple[EngineCandidate, ...]:
    """Return every engine that is loaded or fits, as its node would report it."""
    found = list[EngineCandidate]()
    for number, held in enumerate(memory.engines):
        evicts = memory.evicts(number) if held.state == "absent" else []
        if evicts is not None:
            found.append(_candidate(memory, number, evicts, now))
    return tuple(found)


def _candidate(
    memory: HostMemory, number: int, evicts: Sequence[int], now: float
) -> EngineCandidate:
    held, hosted = memory.engines[number], memory.fleet.engines[number]
    progress = None
    if held.state == "loading":
        progress = 1 - (held.ready_at - now) / max(hosted.load_seconds, 1e-6)
    report = EngineReport(
        id=hosted.name,
        model=hosted.model,
        variant=hosted.model,
        state=STATES[held.state],
        slots=hosted.slots,
        busy=held.running,
        context=hosted.context,
        abilities=("chat",),
        kind="fake",
        launch=Launch(
            slots=hosted.slots, context=hosted.context, batch=hosted.batch, threads=1
        ),
        memory=round(hosted.memory * GIB),
        load_seconds=hosted.load_seconds,
        progress=progress,
        evicts=tuple(memory.fleet.engines[i].name for i in evicts),
    )
    ready = held.state == "ready"
    return EngineCandidate(
        node_id=hosted.host,
        node=hosted.host,
        origin=Origin("127.0.0.1", 1),
        engine=report,
        unavailable=None if ready else report.state,
        temporary=not ready,
    )


def outlook(
    memory: HostMemory,
    models: Sequence[EngineModel],
    reported: Sequence[EngineCandidate],
    demands: Sequence[Demand],
    now: float,
) -> Outlook:
    """Return the fleet at this moment, as placement sees it."""
    numbers = {each.name: i for i, each in enumerate(memory.fleet.engines)}
    engines = {each.key: each for each in reported}

    def resident(key: EngineKey) -> Resident:
        number = numbers[key[1]]
        held = memory.engines[number]
        return Resident(
            to=engines[key],
            busy=held.running > 0,
            wanted=wanted(demands, key),
            worked=held.used,
            loaded=held.since,
            drains=drain_seconds(models[number], now),
        )

    return Outlook(
        now=now,
        engines=engines,
        up=frozenset(memory.fleet.memory),
        ordered={},
        held=frozenset(),
        busy=frozenset(),
        resident=resident,
        speed=lambda each: models[numbers[each.engine.id]].speed,
        patience=PATIENCE,
    )
