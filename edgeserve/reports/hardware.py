"""Hardware of a node's machine, as it is reported. Pure."""

from __future__ import annotations

import msgspec


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor. `load` is the share of all cores in use, 0 to 1."""

    model: str
    physical_cores: int
    logical_cores: int
    load: float


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Main memory in bytes; inside a container, the cgroup's limit counts."""

    total: int
    available: int


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """Battery and mains. `percent` is None on machines without a battery.

    `watts` is what it takes now, as `source` measured it; None where nothing does.
    `idle` and `full` are what such a machine takes without and with all its work, by a
    table; 0 where they are not known. `working` is the share of the time of the
    measurement in which its engines had requests, 0 to 1.
    """

    on_mains: bool
    percent: float | None = None
    watts: float | None = None
    source: str = ""
    idle: float = 0.0
    full: float = 0.0
    working: float = 0.0


class Thermal(msgspec.Struct, frozen=True, kw_only=True):
    """Hottest sensor in degrees Celsius, and throttling as the firmware reports it."""

    celsius: float | None = None
    throttled: bool = False
    under_voltage: bool = False


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; memory in bytes."""

    name: str
    memory_total: int
    memory_free: int


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """Operating system and architecture, as in `uname`."""

    system: str
    release: str
    machine: str
    python: str


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """The node's machine, as last measured."""

    platform: Platform
    cpu: Cpu
    memory: Memory
    power: Power
    thermal: Thermal
    gpus: tuple[Gpu, ...] = ()
