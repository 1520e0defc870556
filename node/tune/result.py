"""What tuning found, and for which machine, engine and file it holds. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from edgeserve.wire import Hardware
from node.engines.protocol import Role
from node.offload import Device
from node.tuned import Tuned


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens/s: reading a prompt, writing for one stream, and for all slots at once."""

    prefill: float
    decode: float
    aggregate: float


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What a result is about. `file_bytes` tells a replaced file from the tuned one."""

    machine: str
    engine: str
    variant: str
    file_bytes: int
    role: Role


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The best settings found, and what they and the untuned ones measured.

    `failed` says how an engine ended that was started with them, if one was; `wanted`
    is the seconds that trying everything would have taken, 0 where it was done.
    """

    key: Key
    tuned: Tuned
    untuned: Figures
    best: Figures
    gain: float
    made: str
    failed: str = ""
    wanted: float = 0.0

    @property
    def usable(self) -> Tuned | None:
        """The settings to start with."""
        return None if self.failed else self.tuned

    @property
    def used(self) -> Figures:
        """What was measured of them."""
        return self.untuned if self.failed else self.best

    @property
    def summary(self) -> str:
        """Say it in a few words: `tuned on 2026-01-31: +12 %`."""
        if self.failed:
            return f"tuned on {self.made[:10]}, but that did not start: {self.failed}"
        if not self.tuned.changes:
            return f"tuned on {self.made[:10]}: nothing better was found"
        return f"tuned on {self.made[:10]}: {self.gain:+.0%}".replace("%", " %")


@dataclass(frozen=True)
class Tunings:
    """Every result that holds for this machine and engine."""

    machine: str = ""
    engine: str = ""
    results: dict[Key, Result] = field(default_factory=dict[Key, Result])

    def key(self, variant: str, file_bytes: int, role: Role) -> Key:
        """Name what a result for that file would be about."""
        return Key(
            machine=self.machine,
            engine=self.engine,
            variant=variant,
            file_bytes=file_bytes,
            role=role,
        )

    def find(self, variant: str, file_bytes: int, role: Role) -> Result | None:
        """Return the result for that file, if it was tuned here."""
        return self.results.get(self.key(variant, file_bytes, role))


def fingerprint(
    hardware: Hardware, devices: Iterable[Device] = (), *, apart: bool = False
) -> str:
    """Tell machines apart by what speeds depend on; `apart` means an engine per GPU.

    Memory is left out: whether a result still fits is another question.
    """
    cpu = hardware.cpu
    parts = (
        hardware.platform.machine,
        cpu.model,
        str(cpu.physical_cores),
        str(cpu.logical_cores),
        *(f"{each.name} {each.description}" for each in devices),
        "apart" if apart else "",
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
