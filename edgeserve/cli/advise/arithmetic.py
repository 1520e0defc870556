"""Arithmetic of an advice, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edgeserve.cli.advise.choice import AdvisedModel
from edgeserve.cli.advise.vllm import ANSWER, PROMPT, VllmPlan
from edgeserve.models.memory import size
from node.planning.expected_speed import GB, TERA, SpeedTerms

GIGA = 10**9


def sentences(advised: AdvisedModel) -> Iterator[tuple[str, str]]:
    """Yield each figure with what it is computed from."""
    fitted, planned = advised.planned.fitted, advised.planned
    if planned.chosen:
        yield "why", planned.chosen
    yield "memory", fitted.need.arithmetic()
    if fitted.preferred:
        yield (
            " ",
            f"reduced to fit; the first choice takes {size(fitted.preferred.total)}",
        )
    yield "offload", offload(advised)
    if advised.purpose.speed:
        yield "writes", f"{speed(advised.write)} tokens/s{_writing(advised)}"
    yield "reads", f"{speed(advised.read)} tokens/s{_reading(advised)}"
    yield "first", _first(advised)


def offload(advised: AdvisedModel) -> str:
    """Return what of the model is on the GPUs."""
    fitted, launch = advised.planned.fitted, advised.planned.spec.launch
    if not fitted.gpu_memory:
        return "none; the processor computes all layers"
    total = advised.planned.spec.layers
    where = f"{size(fitted.gpu_memory)} there, {size(fitted.memory)} in main memory"
    if launch.gpu_layers < 0:
        return f"all {total} layers on the GPU: {where}"
    return f"{launch.gpu_layers} of {total} layers on the GPU: {where}"


def layers(advised: AdvisedModel) -> str:
    """Return the same in a word, for a table."""
    count = advised.planned.spec.launch.gpu_layers
    if not advised.planned.fitted.gpu_memory:
        return "none"
    return "all" if count < 0 else f"{count} of {advised.planned.spec.layers}"


def speed(rate: float) -> str:
    """Render a rate as it is read: three digits, thousands set apart."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def seconds(value: float) -> str:
    """Render a time with two digits."""
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s"


MEASURED = ", measured here by `edgeserve node tune`"


def _writing(advised: AdvisedModel) -> str:
    if advised.measured:
        return MEASURED
    return (
        f": each token reads {advised.terms.bytes / GB:.3g} GB of weights,"
        f" {_paths(advised.terms)}"
    )


def _paths(terms: SpeedTerms) -> str:
    """Return where the bytes of a token come from, and how fast."""
    main, gpu = (f"{speed(each / GB)} GB/s" for each in (terms.main, terms.gpu))
    if not terms.on_gpu:
        return f"from main memory at {main}"
    if terms.on_gpu >= 1:
        return f"from the GPU's memory at {gpu}"
    there = terms.bytes * terms.on_gpu / GB
    rest = terms.bytes / GB - there
    return (
        f"{there:.3g} GB from the GPU's memory at {gpu} and {rest:.3g} GB from main"
        f" memory at {main}"
    )


def _reading(advised: AdvisedModel) -> str:
    if advised.measured:
        return MEASURED
    terms = advised.terms
    need = f"each token takes {terms.operations / GIGA:.3g} GFLOP"
    gpu = f"{terms.gpu_computing / TERA:.3g} TFLOP/s of the GPU"
    main = f"{terms.computing / TERA:.3g} TFLOP/s of the processor"
    if not terms.on_gpu:
        return f": {need}, at {main}"
    if terms.on_gpu >= 1:
        return f": {need}, at {gpu}"
    rest = f"{speed(terms.carried)} tokens/s while weights are sent to the GPU"
    slow = rest if terms.carried * terms.operations > terms.computing else f"at {main}"
    return f": {need}, {terms.on_gpu:.0%} of it at {gpu}, the rest {slow}"


def _first(advised: AdvisedModel) -> str:
    tokens = advised.purpose.prompt
    reading = f"{tokens:,} / {speed(advised.read)}"
    found = seconds(advised.first)
    if not advised.purpose.speed:
        return f"a vector of {tokens:,} tokens after {found} = {reading}"
    return (
        f"token of a prompt of {tokens:,} after {found} = {reading}"
        f" + 1 / {speed(advised.write)}"
    )


def vllm_sentences(plan: VllmPlan) -> Iterator[tuple[str, str]]:
    """Yield the same for vLLM."""
    total = size(plan.weights + plan.kv)
    yield (
        "memory",
        f"{total} = weights {size(plan.weights)} (16 bits) + KV {size(plan.kv)}"
        f" ({plan.streams} x 2,048 tokens); the GPUs have {size(plan.room)} for it",
    )
    yield (
        "together",
        f"{speed(plan.together)} tokens/s in and out, {plan.streams} streams of"
        f" {PROMPT} tokens in and {ANSWER} out",
    )
    yield "alone", f"{speed(plan.write)} tokens/s"
    yield "first", f"token after {seconds(plan.first)} on average, when all ask at once"
