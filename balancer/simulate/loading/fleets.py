"""Fleets with more models than memory: machines, their memory, their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec.structs import asdict

from balancer.simulate.fleets import Machine, from_file
from edgeserve.errors import SettingsError


class HostedEngine(Machine, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine that can be loaded on a machine (`host`); `memory` in GiB."""

    host: str
    memory: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class HostFleet:
    """All engines that could be loaded, and the memory of each machine in GiB."""

    engines: tuple[HostedEngine, ...]
    memory: Mapping[str, float]

    def of(self, model: str) -> list[int]:
        """Return the numbers of the engines of a model."""
        return [i for i, each in enumerate(self.engines) if each.model == model]

    @property
    def models(self) -> list[str]:
        """Its models, in order of their names."""
        return sorted({each.model for each in self.engines})


class _Model(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One `[[machine.model]]` table."""

    name: str
    memory: float
    load_seconds: float
    prefill: float
    decode: float
    slots: int = 1
    slowdown: float = 0.3
    batch: int = 256


class _Host(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One `[[machine]]` table that has models."""

    name: str
    memory: float
    count: int = 1
    model: list[_Model]


class _HostFile(msgspec.Struct, forbid_unknown_fields=True):
    machine: list[_Host]


def _fleet(hosts: Sequence[_Host]) -> HostFleet:
    engines, memory = list[HostedEngine](), dict[str, float]()
    for host in hosts:
        for number in range(host.count):
            name = host.name if host.count == 1 else f"{host.name}-{number + 1}"
            memory[name] = host.memory
            for model in host.model:
                fields = asdict(model)
                shown = fields.pop("name")
                engines.append(
                    HostedEngine(
                        name=f"{name}/{shown}", host=name, model=shown, **fields
                    )
                )
    return HostFleet(tuple(engines), memory)


def _on(scale: float, slots: int, seconds: float) -> list[_Model]:
    """Three models on a machine that reads `scale` times as fast as a small one."""
    return [
        _Model(
            name=name,
            memory=memory,
            load_seconds=memory * seconds,
            prefill=prefill * scale,
            decode=decode * scale**0.5,
            slots=slots,
        )
        for name, memory, prefill, decode in (
            ("small", 3.0, 200.0, 24.0),
            ("coder", 6.0, 90.0, 12.0),
            ("large", 10.0, 50.0, 7.0),
        )
    ]


HOST_FLEETS: dict[str, HostFleet] = {
    "one-box": _fleet([_Host(name="box", memory=8, model=_on(4, 2, 1.0)[:2])]),
    "three-boxes": _fleet(
        [
            _Host(name="gpu", memory=12, model=_on(16, 4, 0.7)),
            _Host(name="box", memory=16, count=2, model=_on(2, 2, 1.5)),
        ]
    ),
}
"""A machine with room for one of two models; a GPU box and two others, with room for
one or two of three."""


def load(where: str) -> HostFleet:
    """Return a built-in fleet by name, or load a TOML file of machines with models."""
    if where in HOST_FLEETS:
        return HOST_FLEETS[where]
    fleet = _fleet(from_file(where, _HostFile, HOST_FLEETS).machine)
    for each in fleet.engines:
        if each.memory > fleet.memory[each.host]:
            raise SettingsError(f"{each.name} does not fit into {each.host}'s memory")
    return fleet
