"""Small values for the node's tests: hardware, an engine that only pretends."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from edgeserve.errors import NoNode
from edgeserve.http.types import Origin
from edgeserve.reports.hardware import Cpu, Hardware, Memory, Platform, Power, Thermal
from edgeserve.wire import EngineReport, EngineState, Launch
from node.engines.base import EngineSpec
from node.hardware.sample import LatestHardware
from node.state import NodeState
from node.supervision.slots import Slots
from node.supervision.supervisor import Supervisor
from tests.fakes.aiohttp_relay import upstream

LAUNCH = Launch(slots=2, context=2048, batch=128, threads=2)


def some_hardware(**changes: Any) -> Hardware:
    hardware = Hardware(
        platform=Platform(system="Linux", release="6", machine="aarch64", python="3"),
        cpu=Cpu(model="Pi", physical_cores=4, logical_cores=4, load=0.1),
        memory=Memory(total=8 * 2**30, available=6 * 2**30),
        power=Power(on_mains=True),
        thermal=Thermal(celsius=40.0),
    )
    return msgspec.structs.replace(hardware, **changes)


def an_engine(variant: str = "tiny:Q4_0", **changes: Any) -> EngineReport:
    report = EngineReport(
        id=variant,
        model=variant.partition(":")[0],
        variant=variant,
        state="ready",
        slots=2,
        context=2048,
        abilities=("chat", "completion"),
        kind="fake",
        launch=LAUNCH,
    )
    return msgspec.structs.replace(report, **changes)


class PretendSupervisor(Supervisor):
    """Counts slots like a real one; its process is whatever listens at `origin`."""

    def __init__(self, report: EngineReport, origin: Origin) -> None:
        self.api_key = "engine-key"
        self.state: EngineState = "ready"
        self.slots = Slots(report.slots, lambda: None)
        self.spec = EngineSpec(
            id=report.id,
            model=report.model,
            variant=report.variant,
            path=Path("tiny.gguf"),
            role="generate",
            abilities=report.abilities,
            launch=report.launch,
        )
        self._report = report
        self._origin = origin

    @property
    def report(self) -> EngineReport:
        return msgspec.structs.replace(
            self._report, state=self.state, busy=self.slots.busy
        )

    @property
    def origin(self) -> Origin:
        return self._origin

    @contextmanager
    def claim(self, by: str = "", *, beside: bool = False) -> Generator[None]:
        if self.state != "ready":
            raise NoNode(f"the engine is {self.state}")
        with self.slots.claim(by, beside=beside):
            yield


class SomeId:
    """An identity that lives in memory."""

    def __init__(self, id_: str = "0" * 32) -> None:
        self.id = id_

    def renew(self) -> None:
        self.id = "f" * 32


def a_node(*supervisors: Supervisor, **changes: Any) -> NodeState:
    state = NodeState(
        name="kitchen",
        identity=SomeId(),
        instance="i1",
        hardware=LatestHardware(some_hardware()),
        port=8090,
        **changes,
    )
    state.serve(supervisors)
    return state


async def answer(supervisor: Supervisor, tokens: int = 3, prompt: str = "Hi") -> int:
    """Have it generate; returns the status."""
    body = json.dumps({"prompt": prompt, "n_predict": tokens}).encode()
    headers = {"authorization": f"Bearer {supervisor.api_key}"}
    async with (
        upstream(connect_seconds=30) as ask,
        ask.ask(supervisor.origin, "POST", "/completion", headers, body) as reply,
    ):
        await reply.read()
        return reply.status
