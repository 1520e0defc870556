"""Fake machines in one process: a Pi, a laptop and a GPU box, with their engines.

Usage: python -m tests.bench.routing.machines

Prints one line of JSON with their ports, and at SIGTERM one with what each has done.
Everything is about ten times as quick as in life, so that a run takes a minute. What
the nodes report of their hardware, and what they expect of their engines because of it,
is as true ones would for such machines and a 3B model: not these speeds.
"""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass

import msgspec

from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Cpu, Gpu, Hardware
from edgeserve.wire import Expected
from node.engines.devices import Device
from node.planning.expected_speed import expected, expected_reading
from node.planning.fit import Fitted, Load, Room, fit
from tests.fakes.llama import Behaviour
from tests.fakes.node import HARDWARE, FakeNode, fake_node
from tests.fakes.reports import an_engine
from tests.node.shapes import facts

GIB = 2**30
MODEL = facts(1.9, kind="Q4_K", layers=28)


@dataclass(frozen=True)
class Machine:
    """One fake machine and its speed."""

    cpu: str
    cores: int
    behaviour: Behaviour
    gpu: str = ""

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        card = Gpu(name=self.gpu, memory_total=12 * GIB, memory_free=11 * GIB)
        return (card,) if self.gpu else ()

    @property
    def hardware(self) -> Hardware:
        cores = self.cores
        cpu = Cpu(model=self.cpu, physical_cores=cores, logical_cores=cores, load=0.0)
        return msgspec.structs.replace(HARDWARE, cpu=cpu, gpus=self.gpus)


MACHINES = {
    "pi": Machine(
        "Raspberry Pi 5 Model B Rev 1.0",
        4,
        Behaviour(slots=1, prefill=120, decode=20, batch=32, context=8192),
    ),
    "laptop": Machine(
        "11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz",
        4,
        Behaviour(slots=2, prefill=800, decode=80, batch=64, context=8192),
    ),
    "gpu": Machine(
        "AMD Ryzen 5 5600X 6-Core Processor",
        6,
        Behaviour(slots=4, prefill=8000, decode=300, batch=256, context=8192),
        "NVIDIA GeForce RTX 3060",
    ),
}


def node(name: str, machine: Machine) -> AbstractAsyncContextManager[FakeNode]:
    """Run one machine with its engine, planned and reported as by the node agent."""
    devices = [
        Device("CUDA0", each.name, each.memory_total, each.memory_free)
        for each in machine.gpus
    ]
    free = sum(each.memory_free for each in devices)
    fitted = fit(
        Load(facts=MODEL),
        NodeSettings(slots=machine.behaviour.slots),
        Room(cores=machine.cores, memory=6 * GIB, gpu_memory=free),
    )
    assert isinstance(fitted, Fitted)
    engine = msgspec.structs.replace(
        an_engine(slots=machine.behaviour.slots, context=machine.behaviour.context),
        launch=msgspec.structs.replace(fitted.launch, batch=machine.behaviour.batch),
        expected=Expected(
            read=expected_reading(MODEL, fitted, machine.hardware, devices),
            write=expected(MODEL, fitted, machine.hardware, devices),
        ),
    )
    return fake_node(name, machine.behaviour, engine=engine, hardware=machine.hardware)


def done(machine: FakeNode) -> dict[str, int]:
    """Count what one machine did."""
    counters = machine.llama.counters
    return {
        "answers": counters.finished,
        "read": counters.prompt_tokens,
        "cached": counters.cached_tokens,
    }


async def main() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with AsyncExitStack() as stack:
        nodes = {
            name: await stack.enter_async_context(node(name, machine))
            for name, machine in MACHINES.items()
        }
        ports = {
            name: (each.origin.port, each.llama.port) for name, each in nodes.items()
        }
        print(json.dumps(ports), flush=True)
        await stop.wait()
        print(
            json.dumps({name: done(each) for name, each in nodes.items()}), flush=True
        )


if __name__ == "__main__":
    asyncio.run(main())
