"""Places: the cores and GPUs that one engine may have. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgeserve.config.settings import NodeSettings
from node.engines.devices import Device


@dataclass
class Place:
    """Where an engine may run: cores and GPUs, and the free memory of those.

    `name` distinguishes engines of one model; empty where there is only one place.
    """

    cores: int
    devices: tuple[Device, ...] = ()
    gpu_memory: int = 0
    name: str = ""

    @property
    def chosen(self) -> tuple[str, ...]:
        """The GPUs to name to llama.cpp; none for all of them."""
        return tuple(each.name for each in self.devices) if self.name else ()


def places_of(
    devices: tuple[Device, ...], settings: NodeSettings, cores: int
) -> tuple[Place, ...]:
    """Return one place for all GPUs, or one for each."""
    if settings.per_gpu and devices:
        share = max(1, cores // len(devices))
        return tuple(
            Place(share, (each,), each.memory_free, f"@{each.name}") for each in devices
        )
    free = sum(each.memory_free for each in devices)
    return (Place(cores, devices, free),)
