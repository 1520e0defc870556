"""Simulated fleets: the true speed of each engine. Three are built in."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec.structs import asdict, replace

from balancer.prediction.speed import Speed
from edgeserve.errors import SettingsError, in_words
from edgeserve.runtime.files import read_bytes

ANY = ""
"""The model of a machine that serves every model."""

MOST_BYTES = 2**20


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One engine. Rates in tokens/s, as `llama-bench` prints them.

    `attention` is how much more a prompt token costs per 1,000 earlier tokens, as a
    share; `slowdown` how much a second sequence slows the first. `batch` is `-b`.
    `cache_tokens` is the size of the host cache (`--cache-ram`) in tokens; 0 is off.
    `noise` is the spread of its speed between requests. `model` is the model that it
    serves, ANY for all. `idle` and `full` are watts without and with requests, `boot`
    the seconds in which it comes up; 0 for one that never sleeps.
    """

    name: str
    slots: int = 1
    prefill: float
    attention: float = 0.02
    decode: float
    slowdown: float = 0.3
    batch: int = 256
    context: int = 8192
    cache_tokens: int = 0
    network_ms: float = 2.0
    noise: float = 0.05
    model: str = ANY
    idle: float = 0.0
    full: float = 0.0
    boot: float = 0.0

    def serves(self, model: str) -> bool:
        """Whether it serves a model."""
        return self.model in {ANY, model}

    @property
    def speed(self) -> Speed:
        """Its speed in the form that the balancer learns."""
        read = 1 / self.prefill
        return Speed(
            prefill=read,
            attention=read * self.attention / 1000,
            decode=1 / self.decode,
            slowdown=self.slowdown,
            overhead=self.network_ms / 1000,
        )


def many(machine: Machine, count: int) -> tuple[Machine, ...]:
    """Return several of one machine: pi-1, pi-2 and so on."""
    return tuple(replace(machine, name=f"{machine.name}-{i + 1}") for i in range(count))


def _machine(name: str, slots: int, prefill: float, decode: float) -> Machine:
    return Machine(name=name, slots=slots, prefill=prefill, decode=decode)


_CPU_ONLY = (
    _machine("pi-1", 1, 18, 5),
    _machine("pi-2", 1, 24, 6),
    _machine("pi-3", 1, 30, 7),
    _machine("laptop-1", 2, 110, 16),
    _machine("laptop-2", 2, 160, 20),
)
_GPU = Machine(
    name="gpu", slots=4, prefill=2200, decode=90, slowdown=0.08, batch=512,
    attention=0.01,
)  # fmt: skip

FLEETS: dict[str, tuple[Machine, ...]] = {
    "cpu-only": _CPU_ONLY,
    "home": (*_CPU_ONLY, _GPU),
    "six-equal": many(_machine("box", 2, 400, 30), 6),
}
"""Three Pis and two laptops; the same with a GPU box; six equal machines."""


class _Entry(Machine, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[machine]]` table of a fleet file."""

    count: int = 1


class _File(msgspec.Struct, forbid_unknown_fields=True):
    machine: list[_Entry]


T = TypeVar("T")


def from_file(where: str, shape: type[T], built_in: Iterable[str]) -> T:
    """Read a TOML file of `[[machine]]` tables. Raises SettingsError."""
    try:
        table = tomllib.loads(read_bytes(Path(where), MOST_BYTES).decode())
        return msgspec.convert(table, shape)
    except OSError as error:
        names = ", ".join(built_in)
        raise SettingsError(
            f"cannot read fleet {where!r}: {in_words(error)}; built in: {names}"
        ) from error
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise SettingsError(f"{where} is not a fleet file: {error}") from error


def load(where: str) -> tuple[Machine, ...]:
    """Return a built-in fleet by name, or load a TOML file of `[[machine]]` tables."""
    if where in FLEETS:
        return FLEETS[where]
    found: list[Machine] = []
    for entry in from_file(where, _File, FLEETS).machine:
        fields = asdict(entry)
        count = fields.pop("count")
        machine = Machine(**fields)
        found += [machine] if count == 1 else many(machine, count)
    return tuple(found)
