"""Model selection: which models and which variants this node serves."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import in_words
from edgeserve.models.comparison import Comparison
from edgeserve.models.naming import stem
from edgeserve.openai import normal
from edgeserve.quantization import at_least, loss
from edgeserve.runtime.files import read_json
from node.engines.base import Role
from node.models.library import (
    Model,
    ModelLibrary,
    UnusableFile,
    arrives,
    look,
    scan,
)

log = logging.getLogger(__name__)

ALL = ":*"
"""Suffix of a model's name: every variant, each in its own engine."""


@dataclass(frozen=True)
class RequestedModel:
    """A model to be served in a role.

    `logical`: the settings choose the variant, or none.
    """

    models: tuple[Model, ...]
    role: Role
    logical: bool = False

    @property
    def name(self) -> str:
        """The model's name, without variant."""
        return self.models[0].model

    @property
    def alone(self) -> Model | None:
        """The model, where it has but one variant."""
        return self.models[0] if len(self.models) == 1 else None


@dataclass(frozen=True)
class Requested:
    """The models to serve, a sentence for each that is missing, and all there is."""

    models: list[RequestedModel]
    problems: list[str]
    library: ModelLibrary


def requested_models(
    settings: NodeSettings, arriving: Collection[Path] = ()
) -> Requested:
    """Find the named models, or all models of the folder if none is named.

    Reads files, but none that is still `arriving`.
    """
    problems: list[str] = []
    library = ModelLibrary()
    try:
        library = scan(settings.models_dir, arriving)
    except OSError as error:
        why = f"cannot read the models folder {settings.models_dir}: {error.strerror}"
        problems.append(why)
    found: list[RequestedModel] = []
    for each in _named(settings, library, arriving):
        found += [each] if isinstance(each, RequestedModel) else []
        problems += [each.reason] if isinstance(each, UnusableFile) else []
    if not settings.models:
        problems += [each.reason for each in library.unusable]
        found += _everything(
            library, choose=bool(settings.min_speed or settings.min_quality)
        )
    if not found and not problems:
        where = settings.models_dir
        problems.append(f"no model in {where}; `edgeserve pull` fetches one")
    return Requested(found, problems, library)


def _everything(library: ModelLibrary, *, choose: bool) -> list[RequestedModel]:
    """Request every variant, smallest first, or one variant of each model."""
    models = sorted(library.models, key=lambda each: each.facts.file_bytes)
    if not choose:
        return [RequestedModel((each,), each.role) for each in models]
    variants: dict[tuple[str, Role], list[Model]] = {}
    for each in models:
        variants.setdefault((each.model, each.role), []).append(each)
    return [
        RequestedModel(tuple(v), role, logical=True)
        for (_, role), v in variants.items()
    ]


def _named(
    settings: NodeSettings, library: ModelLibrary, arriving: Collection[Path]
) -> Iterator[RequestedModel | UnusableFile]:
    asked: tuple[tuple[Role, tuple[str, ...]], ...] = (
        ("generate", settings.models),
        ("embeddings", settings.embedding_models),
        ("rerank", settings.rerank_models),
    )
    for role, names in asked:
        for name in names:
            yield from _resolve(name, role, settings.models_dir, library, arriving)


def _resolve(
    name: str,
    role: Role,
    folder: Path,
    library: ModelLibrary,
    arriving: Collection[Path],
) -> Iterator[RequestedModel | UnusableFile]:
    """Yield the meaning of a name: a file, a model, a variant, or all variants."""
    for file in files_named(name, folder):
        if file.is_file():
            if arrives(file, arriving):
                why = (
                    f"{file}: is still being written; it is served once it is complete"
                )
                yield UnusableFile(file, why)
                return
            found = look(file)
            yield RequestedModel((found,), role) if isinstance(found, Model) else found
            return
    wanted = normal(name.removesuffix(ALL))
    there = [each for each in library.models if wanted in _names(each)]
    if not there:
        known = ", ".join(each.variant for each in library.models) or "nothing"
        why = f"no file and no model {name!r} in {folder}; there is {known}"
        yield UnusableFile(folder / name, why)
    elif name.endswith(ALL):
        yield from (RequestedModel((each,), role) for each in there)
    else:
        yield RequestedModel(tuple(there), role, logical=wanted == there[0].model)


def files_named(name: str, folder: Path) -> tuple[Path, ...]:
    """Return the files that a model's name may mean, the first of them first."""
    return Path(name).expanduser(), folder / name, folder / f"{name}.gguf"


def _names(model: Model) -> set[str]:
    return {model.model, model.variant, normal(model.path.name)}


@dataclass(frozen=True, kw_only=True)
class Option:
    """A variant as this node could serve it.

    `speed` is the expected tokens/s of one stream; `whole`: it fits without any
    reduction; `bits` are per weight; `divergence` is its measured loss against the
    base, in nats, None where it was not measured.
    """

    variant: str
    label: str
    speed: float
    whole: bool
    bits: float
    divergence: float | None = None


@dataclass(frozen=True)
class Choice:
    """The variant to serve and why; `short`: it is slower than requested."""

    variant: str
    why: str
    short: bool = False


def choose(options: Sequence[Option], settings: NodeSettings) -> Choice | str:
    """Choose among variants that can run, or return why none is good enough.

    With a minimum speed, the best quality that reaches it; with only a minimum quality,
    the fastest that reaches it; with neither, the best quality that fits whole.
    """
    good = [each for each in options if _good(each, settings.min_quality)]
    if not good:
        there = ", ".join(each.variant for each in options)
        return f"none is as good as {settings.min_quality}; there is {there}"
    if settings.min_speed:
        return _fast_enough(good, settings.min_speed, _losses(options))
    if settings.min_quality:
        floor = f"of quality {settings.min_quality} or better"
        return Choice(_fastest(good).variant, f"the fastest {floor}")
    whole = [each for each in good if each.whole]
    if not whole:
        return Choice(_fastest(good).variant, "the fastest, as none fits whole")
    best = _best(whole, _losses(options))
    return Choice(best.variant, "the best quality that fits")


def _fast_enough(
    good: Sequence[Option], wanted: float, losses: dict[str, float]
) -> Choice:
    fast = [each for each in good if each.speed >= wanted]
    if not fast:
        nearest = _fastest(good)
        why = f"the fastest, {nearest.speed:.3g} of the {wanted:g} tokens/s wanted"
        return Choice(nearest.variant, why, short=True)
    best = _best([each for each in fast if each.whole] or fast, losses)
    return Choice(best.variant, f"the best quality that reaches {wanted:g} tokens/s")


def _good(option: Option, floor: str) -> bool:
    """Whether an option reaches a floor: a type's name, or a divergence."""
    bound = bound_of(floor)
    if bound is None:
        return not floor or at_least(option.label, floor)
    known = option.divergence if option.divergence is not None else loss(option.label)
    return known is not None and known <= bound


def bound_of(floor: str) -> float | None:
    """Return the KL divergence that a floor names; None where it names a type."""
    try:
        return float(floor)
    except ValueError:
        return None


def _losses(options: Iterable[Option]) -> dict[str, float]:
    """Return each variant's loss: measured, if all were, else typical of its type."""
    measured = {each.variant: each.divergence for each in options}
    known = {name: value for name, value in measured.items() if value is not None}
    if len(known) == len(measured):
        return known
    typical = {each.variant: loss(each.label) for each in options}
    return {k: math.inf if v is None else v for k, v in typical.items()}


def _best(options: Iterable[Option], losses: dict[str, float]) -> Option:
    return min(options, key=lambda each: (losses[each.variant], -each.bits))


def _fastest(options: Iterable[Option]) -> Option:
    return max(options, key=lambda each: each.speed)


def divergence(file: Path) -> float | None:
    """Return a file's mean KL divergence from its base, in nats, where it was measured.

    A file of another size than the measured one is another file.
    """
    record = file.with_name(f"{stem(file)}.compare.json")
    try:
        found = read_json(record, Comparison)
        size = file.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("ignoring %s: %s; compare again", record, in_words(error))
        return None
    if (found.base.file, found.base.bytes) == (file.name, size):
        return 0.0
    for each in found.variants:
        if (each.file, each.bytes) == (file.name, size):
            return each.quality.divergence[0] if each.quality.divergence else None
    return None
