"""Choice of models: what a machine could serve, planned as its node would.

The planner of the node decides what fits and how much of it goes to the GPUs; here its
answers are compared. Nothing is measured, and no model is opened.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeserve.cli.advise.machine import AdvisedMachine
from edgeserve.cli.advise.typical import (
    BILLION,
    MODELS,
    TypicalModel,
    Use,
)
from edgeserve.models.facts import ModelFacts
from edgeserve.models.naming import variant_path
from edgeserve.quantization import parse
from node.models.library import Model
from node.models.selection import RequestedModel
from node.planning.expected_speed import SpeedTerms, active_bytes, terms
from node.planning.fit import LEAST_CONTEXT
from node.planning.planner import PlannedEngine, Planner
from quantize.plan.assumed import assumed


@dataclass(frozen=True)
class Purpose:
    """What a model is for: tokens of a usual prompt, and what is quick enough.

    `speed` is the least tokens/s of an answer, `first` the most seconds to its first
    token.
    """

    use: Use
    prompt: int
    speed: float
    first: float


PURPOSES = (
    Purpose("chat", prompt=512, speed=8.0, first=20.0),
    Purpose("coding", prompt=2048, speed=15.0, first=20.0),
    Purpose("embeddings", prompt=512, speed=0.0, first=5.0),
)
"""8 tokens/s is as fast as most read; code is skimmed."""

CHAT, CODING, EMBEDDINGS = PURPOSES

GOOD = "Q4_K_M"
"""Poorer variants are advised only where no better one fits: a smaller model of their
size knows more."""

_CODE = re.compile(r"code|coder|starcoder|devstral", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CandidateModel:
    """A model and those of its variants that may be chosen.

    `here`: its files are in the models folder. `base`: it is made from that file.
    """

    name: str
    variants: tuple[Model, ...]
    typical: TypicalModel | None = None
    here: bool = False
    base: Path | None = None


@dataclass(frozen=True, kw_only=True)
class AdvisedModel:
    """One model on one machine, as its node would run it.

    `measured`: the speeds were measured there. `meets`: quick enough for its purpose.
    """

    candidate: CandidateModel
    purpose: Purpose
    model: Model
    planned: PlannedEngine
    terms: SpeedTerms
    measured: bool
    write: float
    read: float

    @property
    def first(self) -> float:
        """Seconds to the first token of a usual prompt; of a text, to its vector."""
        seconds = self.purpose.prompt / self.read
        return seconds + (1 / self.write if self.purpose.speed else 0.0)

    @property
    def meets(self) -> bool:
        """Whether it is quick enough, with a context that is worth it."""
        quick = self.write >= self.purpose.speed and self.first <= self.purpose.first
        return quick and not self.is_cramped

    @property
    def is_cramped(self) -> bool:
        """Whether memory leaves it less context than a usual conversation takes."""
        least = min(LEAST_CONTEXT, self.model.facts.context or LEAST_CONTEXT)
        wanted = least if self.purpose.speed else 0
        return self.planned.spec.launch.context < wanted

    @property
    def skill(self) -> float:
        """How much it knows, in weights of a dense model.

        For a mixture of experts the geometric mean of all weights and those used.
        """
        facts = self.model.facts
        used = min(1.0, active_bytes(facts) / facts.weight_bytes)
        return facts.parameters * (math.sqrt(used) if facts.experts else 1.0)


def quantized(model: Model, label: str) -> Model:
    """Return a variant of an unquantized model that need not exist yet."""
    (kind,) = parse(label)
    plan = assumed(model.facts, kind)
    tensors = tuple(
        replace(each, kind=plan.kinds[each.name]) for each in model.facts.tensors
    )
    path = variant_path(model.path.parent, model.path, kind.name)
    facts: ModelFacts = replace(
        model.facts,
        path=path,
        files=(path,),
        file_bytes=plan.file_bytes,
        file_type=kind.name,
        tensors=tensors,
    )
    return replace(model, path=path, label=kind.name, facts=facts)


def typical_candidate(
    typical: TypicalModel, labels: Sequence[str] = ()
) -> CandidateModel:
    """Return a typical model with its variants."""
    facts = typical.facts()
    whole = Model(
        path=facts.path,
        model=typical.name,
        label="F16",
        role="embeddings" if typical.use == "embeddings" else "generate",
        facts=facts,
    )
    variants = tuple(quantized(whole, each) for each in labels or typical.labels)
    return CandidateModel(name=typical.name, variants=variants, typical=typical)


def use_of(model: Model) -> Use:
    """Return what a model is for, by its role and its name."""
    if model.role != "generate":
        return "embeddings"
    return "coding" if _CODE.search(model.model) else "chat"


def purpose_of(use: Use) -> Purpose:
    """Return the purpose of a use."""
    return next(each for each in PURPOSES if each.use == use)


def place(
    candidate: CandidateModel, purpose: Purpose, machine: AdvisedMachine
) -> AdvisedModel | str:
    """Plan one model as the machine's only one, or return why it cannot run there."""
    planner = _planned(candidate, purpose, machine, GOOD)
    if not planner.engines:
        planner = _planned(candidate, purpose, machine, "")
    if not planner.engines:
        least = min(candidate.variants, key=lambda each: each.facts.weight_bytes)
        return planner.refused.get(least.path) or "; ".join(planner.problems)
    planned = next(iter(planner.engines.values()))
    model = next(m for m in candidate.variants if m.variant == planned.spec.variant)
    expects = planned.spec.expected
    found = terms(model.facts, planned.fitted, machine.hardware, machine.devices)
    return AdvisedModel(
        candidate=candidate,
        purpose=purpose,
        model=model,
        planned=planned,
        terms=found,
        measured=planned.tuning is not None,
        write=expects.write if expects else found.writing,
        read=expects.read if expects else found.reading,
    )


def _planned(
    candidate: CandidateModel, purpose: Purpose, machine: AdvisedMachine, floor: str
) -> Planner:
    settings = replace(machine.settings, min_speed=purpose.speed, min_quality=floor)
    planner = Planner(settings, machine.hardware, machine.devices, machine.tunings)
    role = candidate.variants[0].role
    several = len(candidate.variants) > 1
    planner.place(RequestedModel(candidate.variants, role, logical=several))
    return planner


def candidates_for(
    use: Use, here: Iterable[Model], models: Iterable[TypicalModel] = MODELS
) -> list[CandidateModel]:
    """Return the models of the folder, each with its variants, and typical ones."""
    files: dict[str, list[Model]] = {}
    for each in here:
        if use_of(each) == use:
            files.setdefault(each.model, []).append(each)
    found = [
        CandidateModel(name=name, variants=tuple(each), here=True)
        for name, each in files.items()
    ]
    there = set(files)
    typical = [m for m in models if m.use == use and m.name not in there]
    return found + [typical_candidate(each) for each in typical]


def ranked(
    candidates: Iterable[CandidateModel], purpose: Purpose, machine: AdvisedMachine
) -> list[AdvisedModel]:
    """Return what can run, the best first: quick enough, then as able as possible.

    Of those that are too slow the fastest comes first.
    """
    placed = [place(each, purpose, machine) for each in candidates]
    found = [each for each in placed if isinstance(each, AdvisedModel)]
    return sorted(
        found,
        key=lambda each: (
            not each.meets,
            -each.skill if each.meets else each.first,
            each.model.variant,
        ),
    )


def shown_size(facts: ModelFacts) -> str:
    """Return the number of weights, as in `14.8 B`."""
    return f"{facts.parameters / BILLION:.3g} B"
