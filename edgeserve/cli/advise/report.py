"""Advice as text for people and as JSON for scripts. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeserve.cli.advise.arithmetic import (
    layers,
    seconds,
    sentences,
    speed,
    vllm_sentences,
)
from edgeserve.cli.advise.choice import AdvisedModel, shown_size
from edgeserve.cli.advise.machine import AdvisedMachine
from edgeserve.cli.advise.vllm import VllmPlan
from edgeserve.models.download import CATALOG
from edgeserve.models.memory import size
from edgeserve.terminal import Entry, printable

COMMAND = "$"
"""The name of a line to paste; it is never broken."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What is advised for one machine: the best of each use first.

    `explained` are those whose arithmetic is shown. `vllm` is what many streams are
    better served by. `notes` are sentences.
    """

    machine: AdvisedMachine
    models: tuple[AdvisedModel, ...] = ()
    explained: tuple[AdvisedModel, ...] = ()
    vllm: VllmPlan | None = None
    notes: tuple[str, ...] = ()


def command(advised: AdvisedModel, machine: AdvisedMachine) -> str:
    """Return the one line that does it, for a shell."""
    steps = list[str]()
    if machine.name:
        return _on_a_node(advised, machine.name)
    if machine.builds:
        steps.append("edgeserve engine build")
    steps += _here(advised)
    return " && ".join(steps)


def _here(advised: AdvisedModel) -> Iterator[str]:
    typical, model = advised.candidate.typical, advised.model
    name = model.variant
    if typical and typical.name in CATALOG:
        name = typical.name  # `edgeserve up` fetches it
    elif typical and typical.repository:
        yield f"edgeserve pull {typical.repository}:{model.label}"
    elif typical:
        name = "FILE.gguf"
    base = advised.candidate.base
    if base:
        name = str(model.path)
        if model.path != base:
            wanted = shlex.join([str(base), "--types", model.label])
            yield f"edgeserve quantize run {wanted}"
    serve = "up --model"
    if model.role == "embeddings":
        serve = "node start --embedding-model"
    yield f"edgeserve {serve} {shlex.quote(name)}"


def _on_a_node(advised: AdvisedModel, node: str) -> str:
    """Return what has a node serve it; nodes follow their models folder."""
    typical, model = advised.candidate.typical, advised.model
    where = shlex.quote(node)
    if typical and typical.repository:
        return f"edgeserve pull {typical.repository}:{model.label} --to {where}"
    name = typical.name if typical else model.model
    return f"edgeserve pull {shlex.quote(name)} --to {where}"


def machine_lines(machine: AdvisedMachine) -> Iterator[tuple[str, str]]:
    """Yield what the machine is, and its engine."""
    cpu, memory = machine.hardware.cpu, machine.hardware.memory
    free = f"{size(memory.available)} of {size(memory.total)} memory free"
    yield "machine", printable(f"{cpu.model}, {cpu.physical_cores} cores, {free}")
    for gpu in machine.hardware.gpus:
        free = f"{size(gpu.memory_free)} of {size(gpu.memory_total)} free"
        yield "GPU", printable(f"{gpu.name}, {free}")
    yield "engine", engine(machine)


def engine(machine: AdvisedMachine) -> str:
    """Return the engine and why."""
    where = "there" if machine.name else "here"
    built = f"llama.cpp, built {where} by `edgeserve engine build`, which takes minutes"
    if machine.kind == "none":
        return f"{built}: none works {where} now, as `edgeserve node plan` explains"
    if machine.builds and machine.devices:
        return f"{built}: the {machine.kind} one uses no GPU"
    if machine.builds:
        return f"{built}: the bundled one lacks instructions of this processor"
    if machine.kind == "native":
        what = " with its GPUs" if machine.devices else ""
        return f"llama.cpp, the native one that is {where}{what}"
    return "llama.cpp, bundled: without a GPU a build is no faster on this processor"


HEADS = ("for", "model", "on GPU", "memory", "tokens/s", "first")
FLEET_HEADS = ("node", *HEADS[1:])


def rows(
    advice: Advice, models: Iterable[AdvisedModel], *, named: bool = False
) -> Iterator[Entry]:
    """Yield one row per model; `named`: by machine, not by use."""
    for each in models:
        here = " (here)" if each.candidate.here and not advice.machine.name else ""
        writes = f"reads {speed(each.read)}"
        if each.purpose.speed:
            writes = speed(each.write)
        cells = (
            advice.machine.name if named else each.purpose.use,
            f"{each.model.variant}{here}",
            layers(each),
            size(each.planned.fitted.need.total),
            writes,
            seconds(each.first),
        )
        yield Entry(cells, [] if each.meets else [too_slow(each)])


def commands(
    advice: Advice, models: Iterable[AdvisedModel]
) -> Iterator[tuple[str, str]]:
    """Yield each model's command, under its name."""
    for each in models:
        yield "", f"{each.model.variant}:"
        yield COMMAND, command(each, advice.machine)


def too_slow(advised: AdvisedModel) -> str:
    """Return what is wanting, in a sentence."""
    purpose, wanting = advised.purpose, list[str]()
    if advised.write < purpose.speed:
        wanting.append(f"writes fewer than {purpose.speed:g} tokens/s")
    if advised.first > purpose.first:
        wanting.append(f"needs more than {purpose.first:g} s to its first token")
    if advised.is_cramped:
        tokens = advised.planned.spec.launch.context
        wanting.append(f"has room for a context of only {tokens:,} tokens")
    return f"it {' and '.join(wanting)}" if wanting else ""


def explanation(
    advised: AdvisedModel, machine: AdvisedMachine
) -> list[tuple[str, str]]:
    """Return lines with the arithmetic and the command."""
    lines = [
        ("", f"{advised.model.variant}, {shown_size(advised.model.facts)} weights")
    ]
    lines += sentences(advised)
    typical = advised.candidate.typical
    if typical and typical.repository:
        lines.append(("licence", typical.licence))
    if not advised.meets and (slow := too_slow(advised)):
        lines.append(("note", f"for {advised.purpose.use} {slow}"))
    return [*lines, (COMMAND, command(advised, machine))]


def vllm_lines(plan: VllmPlan) -> list[tuple[str, str]]:
    """Return the lines on vLLM, with its command."""
    where = f" over {len(plan.machines)} machines, by Ray" if plan.ray else ""
    if not plan.ray and plan.machines[0]:
        where = f" on {plan.machines[0]}"
    cards = f" on {plan.cards} GPUs" if plan.cards > 1 else ""
    lines = [("", f"{plan.original} with vLLM{cards}{where}"), *vllm_sentences(plan)]
    if plan.ray:
        names = ", ".join(plan.machines)
        lines.append(
            (
                "before",
                f"`ray start --head` on one of {names}, and on the others"
                " `ray start --address=FIRST:6379`",
            )
        )
    return [*lines, (COMMAND, plan.command)]


def as_json(found: Sequence[Advice]) -> list[dict[str, Any]]:
    """Return everything as values for JSON. Sizes in bytes, times in seconds."""
    return [_advice(each) for each in found]


def _advice(advice: Advice) -> dict[str, Any]:
    machine = advice.machine
    return {
        "machine": {
            "name": machine.name or None,
            "processor": machine.hardware.cpu.model,
            "cores": machine.hardware.cpu.physical_cores,
            "memory": machine.hardware.memory.available,
            "gpus": [
                {"name": gpu.name, "memory": gpu.memory_free}
                for gpu in machine.hardware.gpus
            ],
            "engine": "build" if machine.builds else machine.kind,
        },
        "models": [_model(each, machine) for each in advice.models],
        "vllm": vllm_json(advice.vllm),
        "notes": list(advice.notes),
    }


def _model(advised: AdvisedModel, machine: AdvisedMachine) -> dict[str, Any]:
    fitted, spec = advised.planned.fitted, advised.planned.spec
    return {
        "use": advised.purpose.use,
        "model": advised.model.model,
        "variant": advised.model.variant,
        "here": advised.candidate.here,
        "gpu_layers": spec.launch.gpu_layers if fitted.gpu_memory else 0,
        "layers": spec.layers,
        "slots": spec.launch.slots,
        "context": spec.launch.context,
        "memory": fitted.memory,
        "gpu_memory": fitted.gpu_memory,
        "write": advised.write,
        "read": advised.read,
        "first": advised.first,
        "measured": advised.measured,
        "meets": advised.meets,
        "arithmetic": [f"{name} {text}".strip() for name, text in sentences(advised)],
        "command": command(advised, machine),
    }


def vllm_json(plan: VllmPlan | None) -> dict[str, Any] | None:
    """Return the plan for JSON."""
    if plan is None:
        return None
    return {
        "model": plan.original,
        "machines": list(plan.machines),
        "cards": plan.cards,
        "streams": plan.streams,
        "memory": plan.weights + plan.kv,
        "write": plan.write,
        "together": plan.together,
        "first": plan.first,
        "ray": plan.ray,
        "command": plan.command,
    }
