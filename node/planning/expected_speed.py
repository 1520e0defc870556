"""Expected speed: an estimate of a model's speed before it is measured. Pure.

Writing a token reads every weight once, so memory bandwidth limits it. Reading a prompt
takes two operations for each weight and token, so computing limits it. The figures are
what llama.cpp reaches, not those of data sheets; they are good enough to choose between
variants, and for a balancer to choose a machine. `edgeserve node tune` replaces them by
measurements.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from edgeserve.models.blocks import BLOCKS
from edgeserve.models.facts import ModelFacts
from edgeserve.reports.hardware import Cpu, Hardware
from node.engines.devices import Device
from node.planning.fit import Fitted

GB = 10**9

TERA = 10**12


class Rates(NamedTuple):
    """Rates of a processor or a GPU, per second.

    `memory` in GB, for all cores of a processor together. `computing` in 10¹²
    operations, for one core or a GPU.
    """

    memory: float
    computing: float


MACHINES = (
    (r"Raspberry Pi [23]", Rates(1.5, 0.003)),
    (r"Raspberry Pi 4|Compute Module 4", Rates(3.0, 0.007)),
    (r"Raspberry Pi", Rates(9.0, 0.02)),
    (r"Apple M\d+ Ultra", Rates(500.0, 0.07)),
    (r"Apple M\d+ Max", Rates(250.0, 0.07)),
    (r"Apple M\d+ Pro", Rates(120.0, 0.07)),
    (r"Apple", Rates(60.0, 0.07)),
    (r"EPYC|Xeon|Threadripper", Rates(100.0, 0.07)),
    (r"Intel|AMD|x86_64", Rates(35.0, 0.05)),
)
"""Processors. 16 cores of an EPYC read 87 tokens/s of a 7B model, a Pi 5 some 40 of a
1.1B one."""

OTHER_MACHINE = Rates(8.0, 0.015)

GPUS = (
    (r"H100|H200|B200|MI300", Rates(1300.0, 135.0)),
    (r"A100|MI2\d0|[345]090", Rates(700.0, 70.0)),
    (r"RTX|GTX|Radeon RX|Radeon PRO|Tesla|Quadro|L40|A10|A40", Rates(250.0, 20.0)),
    (r"Apple M\d+ (Max|Ultra)", Rates(250.0, 8.0)),
    (r"Apple", Rates(60.0, 2.0)),
)
"""An H100 reads 10,100 tokens/s of a 7B model."""

OTHER_GPU = Rates(30.0, 1.0)
"""A GPU without memory of its own has the processor's bandwidth."""

PER_CORE, PER_CORE_PLAIN = 3.5, 7.0
"""GB/s that one core unpacks: of blocks, and of types of 8 bits or more.

12 threads read 42 GB/s of Q4_K_M and 82 GB/s of Q8_0 (7B shapes, EPYC).
"""

PLAIN_BITS = 8

BUS = 5.0
"""GB/s at which weights in main memory reach a GPU, once for each computation.

The GPU computes those layers for prompts, too: with 8, 16 and 24 of 33 layers there,
an H100 read 898, 1,212 and 2,093 tokens/s.
"""


@dataclass(frozen=True, kw_only=True)
class SpeedTerms:
    """What an expected speed is computed from.

    Each token reads `bytes` of weights and takes `operations`; `on_gpu` is the share of
    it that is done on GPUs. `main` and `gpu` are bytes, `computing` and `gpu_computing`
    operations per second; `carried` is tokens/s of a prompt whose weights come from
    main memory to the GPU.
    """

    bytes: float
    operations: float
    on_gpu: float
    main: float
    gpu: float
    computing: float
    gpu_computing: float
    carried: float

    @property
    def writing(self) -> float:
        """Tokens/s written for one stream."""
        main = self.bytes * (1 - self.on_gpu) / self.main
        return 1 / (main + self.bytes * self.on_gpu / self.gpu)

    @property
    def reading(self) -> float:
        """Tokens/s of a prompt of a few hundred tokens."""
        main = self.computing / self.operations
        if not self.on_gpu:
            return main
        gpu = self.gpu_computing / self.operations
        return 1 / (self.on_gpu / gpu + (1 - self.on_gpu) / max(main, self.carried))


def terms(
    facts: ModelFacts, fitted: Fitted, hardware: Hardware, devices: Iterable[Device]
) -> SpeedTerms:
    """Return what the expected speed of a launch is computed from."""
    launch, bytes_, gpus = fitted.launch, active_bytes(facts), gpu_rates(devices)
    cores = min(launch.threads, hardware.cpu.physical_cores)
    core = _of(hardware.cpu.model, MACHINES, OTHER_MACHINE).computing
    return SpeedTerms(
        bytes=bytes_,
        operations=2 * bytes_ * 8 / max(facts.bits, 1.0),
        on_gpu=_on_gpu(facts, fitted),
        main=_main_memory(hardware.cpu, launch.threads, facts),
        gpu=gpus.memory * GB,
        computing=cores * core * TERA,
        gpu_computing=gpus.computing * TERA,
        carried=(launch.ubatch or launch.batch) * BUS * GB / bytes_,
    )


def expected(
    facts: ModelFacts, fitted: Fitted, hardware: Hardware, devices: Iterable[Device]
) -> float:
    """Return tokens/s for one stream."""
    return terms(facts, fitted, hardware, devices).writing


def expected_reading(
    facts: ModelFacts, fitted: Fitted, hardware: Hardware, devices: Iterable[Device]
) -> float:
    """Return tokens/s of a prompt of a few hundred tokens."""
    return terms(facts, fitted, hardware, devices).reading


def active_bytes(facts: ModelFacts) -> float:
    """Return the bytes that one token reads: not all experts, not the embedding."""
    share = _experts(facts)
    names = {each.name for each in facts.tensors}
    total = 0.0
    for each in facts.tensors:
        if each.name == "token_embd.weight" and "output.weight" in names:
            continue
        total += each.bytes * (share if "_exps" in each.name else 1.0)
    return max(total, 1.0)


def _experts(facts: ModelFacts) -> float:
    used = facts.metadata.get(f"{facts.architecture}.expert_used_count")
    if not isinstance(used, int) or not facts.experts:
        return 1.0
    return min(1.0, used / facts.experts)


def _on_gpu(facts: ModelFacts, fitted: Fitted) -> float:
    if not fitted.gpu_memory:
        return 0.0
    layers = fitted.launch.gpu_layers
    return 1.0 if layers < 0 else min(1.0, layers / max(facts.layers, 1))


def _main_memory(cpu: Cpu, threads: int, facts: ModelFacts) -> float:
    """Return bytes/s: the memory's bandwidth, or what the cores can unpack."""
    plain = BLOCKS[next(iter(facts.kinds))].bits >= PLAIN_BITS
    cores = min(threads, cpu.physical_cores) * (PER_CORE_PLAIN if plain else PER_CORE)
    return min(_of(cpu.model, MACHINES, OTHER_MACHINE).memory, cores) * GB


def gpu_rates(devices: Iterable[Device]) -> Rates:
    """Return the GPUs' rates. They compute in turn, so the slowest counts."""
    each = [_of(device.description, GPUS, OTHER_GPU) for device in devices]
    found = each or [OTHER_GPU]
    return Rates(
        min(rate.memory for rate in found), min(rate.computing for rate in found)
    )


def machine_rates(hardware: Hardware, devices: Iterable[Device], threads: int) -> Rates:
    """Return bytes/s of weights and operations/s: of the GPUs, if there are any."""
    gpus = list(devices)
    if gpus:
        rates = gpu_rates(gpus)
        return Rates(rates.memory * GB, rates.computing * TERA)
    cores = min(threads, hardware.cpu.physical_cores)
    rates = _of(hardware.cpu.model, MACHINES, OTHER_MACHINE)
    memory = min(rates.memory, cores * PER_CORE)
    return Rates(memory * GB, cores * rates.computing * TERA)


def _of(name: str, table: Iterable[tuple[str, Rates]], otherwise: Rates) -> Rates:
    return next((rate for known, rate in table if re.search(known, name)), otherwise)
