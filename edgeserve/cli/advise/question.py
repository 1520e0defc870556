"""Questions: which model `edgeserve advise MODEL` means, and what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgeserve.cli.advise.choice import (
    CandidateModel,
    Purpose,
    purpose_of,
    quantized,
    typical_candidate,
    use_of,
)
from edgeserve.cli.advise.typical import MODELS, SIZES, TypicalModel, of_size
from edgeserve.errors import CommandError
from edgeserve.openai import normal
from edgeserve.quantization import parse
from edgeserve.suggestions import did_you_mean
from node.models.library import Model, UnusableFile, look

SHORT = {"Q3": "Q3_K_M", "Q4": "Q4_K_M", "Q5": "Q5_K_M", "Q6": "Q6_K", "Q8": "Q8_0"}
"""What a quantization without its ending means."""


class UnknownQuestion(CommandError):
    """No model has that name; the sentence says what may be named."""

    exit_status = 2


def asked(text: str, here: Sequence[Model]) -> tuple[CandidateModel, Purpose]:
    """Return the model that is meant: a file, a model here, a typical one, or a size.

    Raises UnknownQuestion.
    """
    found = _file(Path(text).expanduser()) or _here(text, here) or _typical(text)
    if found is None:
        known = [each.name for each in MODELS]
        names = {each.model for each in here}
        raise UnknownQuestion(
            f"{text!r} is no GGUF file, no model here and no size such as 7b or"
            f" 14b:Q4; known models are {', '.join([*sorted(names), *known])}"
            f"{did_you_mean(text, [*names, *known])}"
        )
    use = found.typical.use if found.typical else use_of(found.variants[0])
    return found, purpose_of(use)


def _file(path: Path) -> CandidateModel | None:
    """Return a file's model; of an unquantized one also the variants it could have."""
    if path.suffix.lower() != ".gguf" and not path.is_file():
        return None
    found = look(path)
    if isinstance(found, UnusableFile):
        raise UnknownQuestion(found.reason)
    variants: tuple[Model, ...] = (found,)
    if not found.facts.quantized_kinds:
        # What names it is the file; the variants are made of it.
        variants += tuple(quantized(found, label) for label in SIZES)
    return CandidateModel(name=found.model, variants=variants, base=path, here=True)


def _here(text: str, here: Sequence[Model]) -> CandidateModel | None:
    wanted = normal(text)
    there = [m for m in here if wanted in {m.model, m.variant, normal(m.path.name)}]
    if not there:
        return None
    return CandidateModel(name=there[0].model, variants=tuple(there), here=True)


def _typical(text: str) -> CandidateModel | None:
    name, _, label = text.partition(":")
    found = _named(name)
    if found is None:
        return None
    kinds = parse(SHORT.get(label.upper(), label)) if label else ()
    return typical_candidate(found, [each.name for each in kinds])


def _named(name: str) -> TypicalModel | None:
    known = {each.name: each for each in MODELS}
    found = known.get(name.lower())
    if found is None:
        return of_size(name)
    return found if len(found.labels) < len(SIZES) - 2 else replace(found, labels=SIZES)
