"""Unmet desires: why a desired model is not as desired, and what would help. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgeserve.orders.engines import DesiredModel, ModelProblem
from edgeserve.wire import AvailableModel, EngineReport
from node.planning.available import FORBIDDEN

PULL = "`edgeserve pull` fetches it; or copy its file into the models folder"
UNPIN = "unpin others, or pin a smaller variant of it"
REPLACE = "see the log of the node; replace the file, or pin another variant"
ALLOW = "allow it again, or take it out of the node's settings"
ALLOW_VARIANT = "allow it again, or unpin it"


ProblemCode = Literal["missing", "does_not_fit", "failed", "forbidden"]


@dataclass(frozen=True, kw_only=True)
class NodeModels:
    """What a node has. `denied` variants are named by settings, but forbidden.

    `refused` are reasons for which pinned engines could not be loaded, by id.
    """

    engines: Sequence[EngineReport] = ()
    available: Sequence[AvailableModel] = ()
    denied: Collection[str] = ()
    refused: Mapping[str, str] = field(default_factory=dict[str, str])


def unmet(
    desired: Iterable[DesiredModel], there: NodeModels
) -> tuple[ModelProblem, ...]:
    """Return the problem of each desired model that has one."""
    return tuple(_problems(desired, there))


def _problems(
    desired: Iterable[DesiredModel], there: NodeModels
) -> Iterator[ModelProblem]:
    for said in desired:
        names = [each for each in there.denied if _is(said.model, each)]
        if said.forbidden and names:
            why = f"the settings of the node name {', '.join(names)}"
            yield _problem(said, "forbidden", why, ALLOW)
        elif said.pinned and (found := _pinned(said, there)):
            yield found


def _pinned(said: DesiredModel, there: NodeModels) -> ModelProblem | None:
    """Return why a pinned model is not loaded."""
    named = [e for e in there.engines if said.model in {e.model, e.variant}]
    if any(e.state in {"ready", "busy", "loading", "leaving"} for e in named):
        return None
    failed = next((e for e in named if e.state != "absent"), None)
    if failed:
        return _problem(said, "failed", failed.reason or "it failed", REPLACE)
    for each in named:
        if each.id in there.refused:
            return _problem(said, "does_not_fit", there.refused[each.id], UNPIN)
    # Otherwise it loads as soon as other engines are idle.
    return None if named else _nowhere(said, there)


def _nowhere(said: DesiredModel, there: NodeModels) -> ModelProblem:
    """Return why no engine could be loaded for a model."""
    for model in there.available:
        if said.model in {model.model, model.variant}:
            if model.reason == FORBIDDEN:
                return _problem(said, "forbidden", FORBIDDEN, ALLOW_VARIANT)
            return _problem(said, "does_not_fit", model.reason, UNPIN)
    return _problem(said, "missing", "there is no file of it here", PULL)


def _is(name: str, variant: str) -> bool:
    return name in {variant, variant.partition(":")[0]}


def _problem(
    said: DesiredModel, code: ProblemCode, reason: str, remedy: str
) -> ModelProblem:
    return ModelProblem(model=said.model, code=code, reason=reason, remedy=remedy)
