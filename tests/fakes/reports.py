"""What a node says of itself, built for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from edgeserve.reports.hardware import Cpu, Hardware, Memory, Platform, Power, Thermal
from edgeserve.wire import Ability, EngineReport, EngineState, Launch, NodeReport

TEXT: tuple[Ability, ...] = ("chat", "completion")


def an_engine(
    variant: str = "small:Q4_1",
    *,
    id: str | None = None,  # noqa: A002 - the field's name
    state: EngineState = "ready",
    reason: str | None = None,
    slots: int = 2,
    busy: int = 0,
    context: int = 4096,
    abilities: tuple[Ability, ...] = TEXT,
    batch: int = 256,
    threads: int = 2,
    **fields: Any,
) -> EngineReport:
    """Build an engine's report."""
    report = EngineReport(
        id=id or variant,
        model=variant.partition(":")[0],
        variant=variant,
        state=state,
        reason=reason,
        slots=slots,
        busy=busy,
        context=context,
        abilities=abilities,
        kind="fake",
        launch=Launch(slots=slots, context=context, batch=batch, threads=threads),
    )
    return msgspec.structs.replace(report, **fields)


def a_report(*engines: EngineReport, name: str = "pi", **fields: Any) -> NodeReport:
    """Build a node's report; its id is its name unless said otherwise."""
    report = NodeReport(
        id=name,
        name=name,
        instance=name,
        version="0",
        state="up",
        port=0,
        hardware=HARDWARE,
        engines=engines,
    )
    return msgspec.structs.replace(report, **fields)


HARDWARE = Hardware(
    platform=Platform(system="Linux", release="6", machine="aarch64", python="3.11"),
    cpu=Cpu(model="fake", physical_cores=4, logical_cores=4, load=0.0),
    memory=Memory(total=4 * 2**30, available=2 * 2**30),
    power=Power(on_mains=True),
    thermal=Thermal(),
)
