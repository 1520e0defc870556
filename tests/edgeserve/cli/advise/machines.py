"""Machines as they report themselves, for advice."""

from __future__ import annotations

from edgeserve.cli.advise.machine import AdvisedMachine, as_if_built
from edgeserve.reports.hardware import (
    Cpu,
    Gpu,
    Hardware,
    Memory,
    Platform,
    Power,
    Thermal,
)

GIB = 2**30
RTX_3060 = "NVIDIA GeForce RTX 3060"
H200_CARD = "NVIDIA H200"


def a_machine(
    cpu: str,
    cores: int,
    gib: float,
    *,
    machine: str = "x86_64",
    gpu: str = "",
    gpu_gib: float = 0.0,
    count: int = 1,
    name: str = "",
    kind: str = "bundled",
) -> AdvisedMachine:
    memory = int(gib * GIB)
    card = int(gpu_gib * GIB)
    hardware = Hardware(
        platform=Platform(system="Linux", release="6", machine=machine, python="3"),
        cpu=Cpu(model=cpu, physical_cores=cores, logical_cores=cores, load=0.0),
        memory=Memory(total=memory, available=int(memory * 0.9)),
        power=Power(on_mains=True),
        thermal=Thermal(),
        gpus=(Gpu(name=gpu, memory_total=card, memory_free=card),) * count
        if gpu
        else (),
    )
    return as_if_built(AdvisedMachine(hardware=hardware, name=name, kind=kind))


PI5 = a_machine("Raspberry Pi 5 Model B Rev 1.0", 4, 7.9, machine="aarch64")
LAPTOP = a_machine("13th Gen Intel(R) Core(TM) i7-1360P", 12, 31)
PC = a_machine("AMD Ryzen 7 5800X", 8, 31, gpu=RTX_3060, gpu_gib=11.8)
H200 = a_machine("INTEL(R) XEON(R) PLATINUM 8558", 16, 128, gpu=H200_CARD, gpu_gib=139)
TWO = a_machine(
    "AMD EPYC 7302", 16, 64, gpu="NVIDIA GeForce RTX 3090", gpu_gib=23.6, count=2
)
