"""Hardware readings: processor, memory, battery and heat, sampled in a thread."""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import psutil
from msgspec import structs

from edgeserve.reports.hardware import (
    Cpu,
    Gpu,
    Hardware,
    Memory,
    Platform,
    Power,
    Thermal,
)
from edgeserve.runtime.background import background, declared
from node.hardware.gpus import Gpus
from node.hardware.limits import cpus, memory_room
from node.hardware.power import power
from node.hardware.readings import cpu_fields, measured
from node.hardware.thermal import thermal
from node.hardware.watts import Meters, Reading
from node.hardware.watts_table import typical

EVERY = 5.0
"""Seconds between two samples."""

GPUS_EVERY = 6
"""Samples between two looks at the GPUs: `nvidia-smi` burns CPU time."""

HARDWARE = declared("hardware")

Sample = Callable[[], Hardware]

Seconds = Callable[[], float]


class Sampler:
    """Measures this machine. For one thread at a time; a call may take a second.

    `worked` tells for how long its engines have had requests so far.
    """

    def __init__(self, power_command: str = "") -> None:
        self.worked: Seconds = lambda: 0.0
        self._meters = Meters(power_command)
        self._work = WorkShare()
        self._platform = Platform(
            system=platform.system(),
            release=platform.release(),
            machine=platform.machine(),
            python=platform.python_version(),
        )
        self._model = measured("model", cpu_model, platform.machine())
        self._look = Gpus()
        self._calls = 0
        self._last = Hardware(
            platform=self._platform,
            cpu=Cpu(model=self._model, physical_cores=1, logical_cores=1, load=0.0),
            memory=_physical_memory(),
            power=Power(on_mains=True),
            thermal=Thermal(),
        )
        measured("load", _load, 0.0)  # the first value is meaningless

    def __call__(self) -> Hardware:
        """Take one sample. A reading that fails keeps its earlier value."""
        last = self._last
        found = last.gpus
        if self._calls % GPUS_EVERY == 0:
            found = measured("GPUs", self._look, last.gpus)
        self._calls += 1
        self._last = Hardware(
            platform=self._platform,
            cpu=measured("processor", self._cpu, last.cpu),
            memory=measured("memory", memory, last.memory),
            power=self._power(found),
            thermal=thermal(last.thermal),
            gpus=found,
        )
        return self._last

    def _power(self, gpus: tuple[Gpu, ...]) -> Power:
        """Return how it is powered, and what it takes."""
        last = self._last
        found = measured("power", power, last.power)
        nvidia = any("amd" not in each.name.lower() for each in gpus)
        watts = measured("watts", lambda: self._meters(gpus=nvidia), Reading())
        idle, full = typical(last.cpu, found, gpus)
        return structs.replace(
            found,
            watts=watts.watts,
            source=watts.source,
            idle=idle,
            full=full,
            working=self._work.since_last(self.worked(), time.monotonic()),
        )

    def _cpu(self) -> Cpu:
        usable = max(1, int(cpus()))
        logical = min(psutil.cpu_count() or 1, usable)
        physical = measured("cores", lambda: psutil.cpu_count(logical=False), None)
        return Cpu(
            model=self._model,
            physical_cores=min(physical or logical, usable),
            logical_cores=logical,
            load=measured("load", _load, self._last.cpu.load),
        )


class WorkShare:
    """The share of the time between two looks in which the engines had requests."""

    def __init__(self) -> None:
        self._before = (0.0, 0.0)

    def since_last(self, worked: float, now: float) -> float:
        """Return it; `worked` are the seconds of work until `now`."""
        (work, at), self._before = self._before, (worked, now)
        return round(min(1.0, max(0.0, worked - work) / max(now - at, 1e-3)), 3)


class LatestHardware:
    """The latest sample."""

    def __init__(self, latest: Hardware) -> None:
        self.latest = latest


@asynccontextmanager
async def measuring(
    hardware: LatestHardware,
    sample: Sample,
    changed: Callable[[], None],
    every: float = EVERY,
) -> AsyncGenerator[None]:
    """Keep the sample at most `every` seconds old for the length of the block.

    `changed` is called when it differs notably from the last reported one.
    """
    async with background() as tasks:
        tasks.start(HARDWARE, lambda: _sampling(hardware, sample, changed, every))
        yield


async def _sampling(
    hardware: LatestHardware, sample: Sample, changed: Callable[[], None], every: float
) -> None:
    reported = hardware.latest
    while True:
        await asyncio.sleep(every)
        hardware.latest = await asyncio.to_thread(sample)
        if notable(reported, hardware.latest):
            reported = hardware.latest
            changed()


def notable(before: Hardware, now: Hardware) -> bool:
    """Whether balancers need the difference at once. Pure."""
    return (
        _powered_otherwise(before.power, now.power)
        or before.thermal.throttled != now.thermal.throttled
        or before.thermal.under_voltage != now.thermal.under_voltage
        or before.cpu.logical_cores != now.cpu.logical_cores
        or len(before.gpus) != len(now.gpus)
        or abs(before.cpu.load - now.cpu.load) >= 0.2
        or abs((before.thermal.celsius or 0) - (now.thermal.celsius or 0)) >= 5
        or _moved(before.memory.available, now.memory.available, now.memory.total)
        or any(
            _moved(then.memory_free, gpu.memory_free, gpu.memory_total)
            for then, gpu in zip(before.gpus, now.gpus, strict=True)
        )
    )


WATTS, SHARE = 2.0, 0.15
"""A change of so many watts is notable, and of this share of all it can take."""


def _powered_otherwise(before: Power, now: Power) -> bool:
    """Whether the source of power differs, or what the machine takes has changed."""
    if (before.on_mains, before.percent) != (now.on_mains, now.percent):
        return True
    if (before.watts is None) != (now.watts is None):
        return True
    step = max(WATTS, SHARE * (now.full - now.idle))
    return abs((before.watts or 0.0) - (now.watts or 0.0)) >= step


def _moved(before: int, now: int, total: int) -> bool:
    return abs(before - now) >= total / 20


def _load() -> float:
    return round(psutil.cpu_percent(None) / 100, 3)


def memory() -> Memory:
    """Return the memory that this process may use, now."""
    seen = psutil.virtual_memory()
    limit, room = memory_room() or (seen.total, seen.available)
    return Memory(total=min(seen.total, limit), available=min(seen.available, room))


def _physical_memory() -> Memory:
    """Ask the C library, which opens no file."""
    page, names = os.sysconf("SC_PAGE_SIZE"), ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
    total, free = (
        os.sysconf(each) if each in os.sysconf_names else 0 for each in names
    )
    return Memory(total=page * total, available=page * free)


def cpu_model() -> str:
    """Return the processor's name, or on ARM boards the board's, which tells more."""
    fields = cpu_fields()
    return fields.get("Model") or fields.get("model name") or platform.machine()
