"""Available models: files without an engine, the reason, and what helps. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from edgeserve.models.memory import layered
from edgeserve.orders.groups import LayeredModel
from edgeserve.wire import AvailableModel
from node.engines.base import EngineSpec
from node.models.library import Model

NOT_ASKED = (
    "the settings of its node name other models or choose another variant",
    "name it with --model, or start the node without naming models",
)
FORBIDDEN = "it is forbidden on this node"
ALLOW = "allow it again with `edgeserve models limit`"
UNLOADED = ("it was unloaded", "load it again with `edgeserve models load`")
NAMESAKE = ("another file here has the same name", "rename one of the two files")
SMALLER = "serve fewer models beside it with --model, or a smaller variant of it"


class Planned(Protocol):
    """An engine of a plan."""

    @property
    def spec(self) -> EngineSpec:
        """What it serves."""
        ...


def available(
    models: Iterable[Model],
    engines: Iterable[Planned],
    refused: Mapping[Path, str],
    *,
    forbidden: Collection[str] = (),
    unloaded: Collection[str] = (),
) -> Iterator[AvailableModel]:
    """Yield the models that no engine serves; `refused` are reasons by file.

    `forbidden` and `unloaded` are variants.
    """
    specs = [each.spec for each in engines]
    served, names = {each.path for each in specs}, {each.variant for each in specs}
    for model in models:
        if model.path in served:
            continue
        parts: LayeredModel | None = None
        reason, remedy = NAMESAKE if model.variant in names else NOT_ASKED
        if model.variant in unloaded:
            reason, remedy = UNLOADED
        if model.variant in forbidden:
            reason, remedy = FORBIDDEN, ALLOW
        elif model.path in refused:
            reason, remedy = refused[model.path], SMALLER
            parts = layered(model.facts)
        yield AvailableModel(
            model=model.model,
            variant=model.variant,
            file=model.path.name,
            reason=reason,
            remedy=remedy,
            layered=parts,
            abilities=model.abilities("generate") if parts else (),
            created=model.written if parts else 0,
        )
