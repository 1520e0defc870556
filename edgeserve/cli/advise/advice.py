"""Advice: what is best for a machine or a fleet, of all that it could serve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from edgeserve.cli.advise.choice import (
    CHAT,
    PURPOSES,
    AdvisedModel,
    CandidateModel,
    Purpose,
    candidates_for,
    place,
    ranked,
)
from edgeserve.cli.advise.machine import AdvisedMachine
from edgeserve.cli.advise.report import Advice
from edgeserve.cli.advise.typical import MODELS, TypicalModel, parameters
from edgeserve.cli.advise.vllm import VllmPlan, vllm_plan
from node.models.library import Model
from node.planning.fit import MOST_SLOTS

WORTH = 0.4
"""A model with less than this share of the weights is not worth its many streams."""

MOST_WRITTEN, MOST_READ = 500.0, 12_000.0
"""Tokens/s on a GPU up to which the arithmetic was near what was measured.

Past that the time to start each computation counts, which it leaves out.
"""

MANY = (
    f"a node serves at most {MOST_SLOTS} at once unless it is told otherwise, others"
    " wait; vLLM serves more, as `--streams` shows"
)


def advise(
    machine: AdvisedMachine, here: Sequence[Model] = (), streams: int = 1
) -> Advice:
    """Rank models for each use: the best, and the best of those that are here."""
    models = list[AdvisedModel]()
    for purpose in PURPOSES:
        found = ranked(candidates_for(purpose.use, here), purpose, machine)
        models += _shown(found)
    best = [each for each in models if each.purpose is CHAT][:1]
    skill = best[0].skill if best else 0.0
    plan = _vllm([machine], streams, skill)
    return Advice(
        machine=machine,
        models=tuple(models),
        explained=tuple(best),
        vllm=plan,
        notes=tuple(_notes(models, machine, streams, plan)),
    )


def _shown(found: Sequence[AdvisedModel]) -> Iterator[AdvisedModel]:
    yield from found[:1]
    here = next((each for each in found if each.candidate.here), None)
    if here is not None and here is not found[0]:
        yield here


def _notes(
    models: Sequence[AdvisedModel],
    machine: AdvisedMachine,
    streams: int,
    plan: VllmPlan | None,
) -> Iterator[str]:
    if not models:
        yield "nothing fits into the memory that is free"
    if streams > MOST_SLOTS and plan is None:
        yield (
            f"for {streams} at once more machines help; no GPU here holds a model that"
            " is as able in 16 bits, which vLLM would need"
        )
    if streams <= MOST_SLOTS and machine.nvidia:
        yield MANY
    if high := [each.model.variant for each in models if _is_too_high(each)]:
        yield (
            f"the speed of {', '.join(high)} is an upper bound: for so small a model on"
            " so large a GPU the time to start each computation counts, which the"
            " arithmetic leaves out (SmolLM2 on an H100: 710 tokens/s measured, 13,500"
            " expected)"
        )
    if any(not each.measured for each in models):
        yield (
            "expected figures are good enough to choose, not to promise; `edgeserve"
            " node tune MODEL` measures here, `edgeserve bench` what serves"
        )


def _is_too_high(advised: AdvisedModel) -> bool:
    """Whether the arithmetic goes past what was found true."""
    on_gpu = advised.terms.on_gpu > 0 and not advised.measured
    return on_gpu and (advised.write > MOST_WRITTEN or advised.read > MOST_READ)


def _vllm(
    machines: Sequence[AdvisedMachine],
    streams: int,
    skill: float,
    models: Iterable[TypicalModel] = MODELS,
) -> VllmPlan | None:
    """Plan the largest model that vLLM could serve to so many, if it is able enough."""
    if streams <= MOST_SLOTS:
        return None
    for model in sorted(models, key=parameters, reverse=True):
        dense = model.use == "chat" and not model.experts
        if dense and parameters(model) >= WORTH * skill:
            plan = vllm_plan(model, machines, streams)
            if plan is not None:
                return plan
    return None


def explain(
    candidate: CandidateModel,
    purpose: Purpose,
    machine: AdvisedMachine,
    streams: int = 1,
) -> Advice:
    """Explain one model: the variant for this machine, or why it does not fit."""
    found = place(candidate, purpose, machine)
    typical = candidate.typical
    many = streams > MOST_SLOTS and typical is not None
    plan = vllm_plan(typical, [machine], streams) if many and typical else None
    if isinstance(found, str):
        note = f"{candidate.name} does not fit: {found}"
        return Advice(machine=machine, vllm=plan, notes=(note,))
    return Advice(
        machine=machine,
        models=(found,),
        explained=(found,),
        vllm=plan,
        notes=tuple(_notes([found], machine, streams, plan)),
    )


def for_fleet(
    machines: Sequence[AdvisedMachine],
    asked: tuple[CandidateModel, Purpose] | None = None,
    streams: int = 1,
) -> tuple[list[Advice], VllmPlan | None, str]:
    """Advise each machine, and return what Ray would join, and a sentence on all.

    Without a model the best one for chat on each machine counts.
    """
    found = list[Advice]()
    for machine in machines:
        if asked is not None:
            found.append(explain(*asked, machine))
        else:
            best = ranked(candidates_for("chat", ()), CHAT, machine)[:1]
            found.append(Advice(machine=machine, models=tuple(best)))
    able = [each for each in found if any(model.meets for model in each.models)]
    plan = _joined(machines, asked, able, streams)
    return found, plan, _together(able, asked, plan)


def _joined(
    machines: Sequence[AdvisedMachine],
    asked: tuple[CandidateModel, Purpose] | None,
    able: Sequence[Advice],
    streams: int,
) -> VllmPlan | None:
    """Plan vLLM for many streams, and by Ray what no machine serves by itself."""
    typical = asked[0].typical if asked else None
    if typical is not None and (not able or streams > MOST_SLOTS):
        return vllm_plan(typical, machines, max(streams, MOST_SLOTS))
    best = [model.skill for each in able for model in each.models]
    return _vllm(machines, streams, max(best, default=0.0)) if not asked else None


def _together(
    able: Sequence[Advice],
    asked: tuple[CandidateModel, Purpose] | None,
    plan: VllmPlan | None,
) -> str:
    """Return what the fleet does with it, in a sentence."""
    names = ", ".join(each.machine.name for each in able)
    if able:
        slots = sum(m.planned.spec.launch.slots for each in able for m in each.models)
        if asked is None:
            return f"served by {names}: the balancer has one list of all models"
        return (
            f"{names}: {slots} streams at once, one copy each; the balancer sends each"
            " request where its first token comes soonest"
        )
    if plan is not None and plan.ray:
        return "no machine serves it by itself; vLLM over Ray joins their GPUs"
    return "no machine serves it quickly enough; a smaller model or variant would do"
