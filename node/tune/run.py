"""Tune the model that was named, on this machine with its engine, and keep the result.

A result is written when it is whole: who stops a tuning keeps what was there before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from edgeserve.config import NodeSettings
from edgeserve.errors import CommandError, EngineUnavailable, in_words
from edgeserve.relay import upstream
from edgeserve.wire import Hardware, Launch
from node.engines.options import options_of
from node.engines.protocol import Engine
from node.fit import Fitted, fit
from node.hardware import Sampler
from node.prepare import Prepared, prepared
from node.specs import Placed
from node.tune.axes import axes
from node.tune.result import Result
from node.tune.search import Search
from node.tune.store import save, tunings_of
from node.tune.trial import Bench
from node.tune.tuning import Tuning, Watch
from node.tuned import difference

CONNECT_SECONDS = 5.0


class NothingToTune(CommandError):
    """No such model that could run here; the sentence says why."""

    exit_status = 2


class NotKept(CommandError):
    """The disk takes no result; the sentence has it."""


async def tuned(settings: NodeSettings, seconds: float, watch: Watch) -> list[Result]:
    """Tune every variant that the settings name, one after the other.

    Raises NothingToTune, EngineUnavailable, NotMeasured and NotKept.
    """
    settings = replace(settings, embedding_models=(), rerank_models=())
    hardware = await asyncio.to_thread(Sampler())
    found = await asyncio.to_thread(prepared, settings, hardware, untuned=True)
    problems = "; ".join(found.plan.problems)
    if found.engine is None:
        raise EngineUnavailable(problems)
    if not found.plan.engines:
        raise NothingToTune(problems)
    each = {placed.spec.variant: placed for placed in found.plan.engines}
    return [
        await _tuned(
            found.engine_of(placed), found, placed, settings, hardware, seconds, watch
        )
        for placed in each.values()
    ]


async def _tuned(
    engine: Engine,
    found: Prepared,
    placed: Placed,
    settings: NodeSettings,
    hardware: Hardware,
    seconds: float,
    watch: Watch,
) -> Result:
    spec, untuned = placed.spec, placed.spec.launch
    devices = () if spec.id in found.others else found.devices
    tunings = tunings_of(engine, hardware, devices, settings)
    options = await asyncio.to_thread(options_of, engine)
    tried = axes(untuned, hardware.cpu, settings, options)
    async with upstream(connect_seconds=CONNECT_SECONDS) as ask:
        tuning = Tuning(
            bench=Bench(engine, spec, ask, settings.state_dir),
            search=Search(untuned, tried, _fitting(placed, settings)),
            untuned=untuned,
            seconds=seconds,
            load_seconds=settings.load_seconds,
            watch=watch,
        )
        key = tunings.key(spec.variant, placed.load.facts.file_bytes, spec.role)
        result = await tuning.result(key)
    try:
        save(settings.state_dir, result)
    except OSError as error:
        raise NotKept(
            f"cannot keep what was measured: {error.filename}: {in_words(error)};"
            f" it was: {result.summary}"
        ) from error
    return result


def _fitting(placed: Placed, settings: NodeSettings) -> Callable[[Launch], bool]:
    """Whether a launch would be used at the next start, memory being as it is now."""

    def fits(launch: Launch) -> bool:
        changes = difference(placed.spec.launch, launch)
        found = fit(placed.load, settings, placed.room, changes)
        return isinstance(found, Fitted) and changes == difference(
            placed.fitted.launch, found.launch
        )

    return fits
