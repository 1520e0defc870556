"""Model selection: which models and which variants this node serves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.openai import normal
from node.engines.base import Role
from node.models.library import (
    Model,
    ModelLibrary,
    UnusableFile,
    arrives,
    look,
    scan,
)

ALL = ":*"
"""Suffix of a model's name: every variant, each in its own engine."""


@dataclass(frozen=True)
class RequestedModel:
    """A model to be served in a role.

    `logical`: the settings choose the variant, or none. `pinned`: it was asked for by
    name, and stays loaded.
    """

    models: tuple[Model, ...]
    role: Role
    logical: bool = False
    pinned: bool = False

    @property
    def name(self) -> str:
        """The model's name, without variant."""
        return self.models[0].model

    @property
    def alone(self) -> Model | None:
        """The model, where it has but one variant."""
        return self.models[0] if len(self.models) == 1 else None


@dataclass(frozen=True)
class Wishes:
    """Names of the models that are to be loaded always, and of those never."""

    pinned: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()

    def pins(self, model: str, variant: str) -> bool:
        """Whether a variant is to stay loaded."""
        return not self.pinned.isdisjoint((model, variant))

    def forbids(self, model: str, variant: str) -> bool:
        """Whether a variant must not be loaded."""
        return not self.forbidden.isdisjoint((model, variant))


@dataclass(frozen=True)
class Requested:
    """The models to serve, a sentence for each that is missing, and all there is.

    `others` are served if they are asked for; `denied` are variants that the settings
    name, but that are forbidden.
    """

    models: list[RequestedModel]
    problems: list[str]
    library: ModelLibrary
    others: list[RequestedModel] = field(default_factory=list[RequestedModel])
    denied: tuple[str, ...] = ()


def requested_models(
    settings: NodeSettings,
    arriving: Collection[Path] = (),
    wishes: Wishes | None = None,
) -> Requested:
    """Find the named models, or all models of the folder if none is named.

    Reads files, but none that is still `arriving`.
    """
    wishes = wishes or Wishes()
    problems: list[str] = []
    library = ModelLibrary()
    try:
        library = scan(settings.models_dir, arriving)
    except OSError as error:
        why = f"cannot read the models folder {settings.models_dir}: {error.strerror}"
        problems.append(why)
    found: list[RequestedModel] = []
    for each in _named(settings, library, arriving):
        if isinstance(each, RequestedModel):
            found.append(replace(each, pinned=True))
        else:
            problems.append(each.reason)
    found += _wished(wishes.pinned, library)
    floors = bool(settings.min_speed or settings.min_quality)
    everything = list(_everything(library, choose=floors))
    if not settings.models:
        problems += [each.reason for each in library.unusable]
        found += everything
    if not found and not problems:
        where = settings.models_dir
        problems.append(f"no model in {where}; `edgeserve pull` fetches one")
    return Requested(
        list(_allowed(found, wishes)),
        problems,
        library,
        list(_allowed(everything, wishes)),
        tuple(
            model.variant
            for each in found
            for model in each.models
            if each.pinned and wishes.forbids(model.model, model.variant)
        ),
    )


def _allowed(
    requests: Iterable[RequestedModel], wishes: Wishes
) -> Iterator[RequestedModel]:
    """Leave out what is forbidden."""
    for each in requests:
        models = tuple(m for m in each.models if not wishes.forbids(m.model, m.variant))
        if models:
            yield replace(each, models=models)


def _wished(names: Iterable[str], library: ModelLibrary) -> Iterator[RequestedModel]:
    """Yield what was pinned while the node ran, as far as there are files of it."""
    for name in sorted(names):
        there = tuple(m for m in library.models if name in {m.model, m.variant})
        if there:
            logical = name == there[0].model
            yield RequestedModel(there, there[0].role, logical=logical, pinned=True)


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
