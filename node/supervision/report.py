"""Engine report: the parts that do not change while an engine runs. Pure."""

from __future__ import annotations

from typing import Any, Literal

from edgeserve.wire import EngineReport, EngineState
from node.engines.base import EngineSpec


def report_of(
    spec: EngineSpec,
    state: EngineState,
    kind: Literal["native", "bundled", "fake"],
    **more: Any,
) -> EngineReport:
    """Return the report of an engine in a state; `more` are other fields of it."""
    usual: dict[str, Any] = {
        "slots": spec.launch.slots,
        "context": spec.launch.context,
        "abilities": spec.abilities,
    }
    return EngineReport(
        id=spec.id,
        model=spec.model,
        variant=spec.variant,
        file=spec.path.name,
        state=state,
        kind=kind,
        launch=spec.launch,
        expected=spec.expected,
        memory=spec.memory,
        created=spec.created,
        layered=spec.layered,
        **{**usual, **more},
    )
