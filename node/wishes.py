"""What a node is asked to serve: names → models on its shelf, by role."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgeserve.config import NodeSettings
from edgeserve.openai import normal
from node.engines.protocol import Role
from node.folders import Unfit
from node.shelf import Model, Shelf, look, scan

ALL = ":*"
"""Behind a model's name: every variant, each in an engine of its own."""


@dataclass(frozen=True)
class Wish:
    """A model to be served in a role.

    `logical` leaves the variant open: settings choose, if only between one and none.
    """

    models: tuple[Model, ...]
    role: Role
    logical: bool = False

    @property
    def name(self) -> str:
        """What the variants have in common."""
        return self.models[0].model

    @property
    def alone(self) -> Model | None:
        """The model, where it has but one variant."""
        return self.models[0] if len(self.models) == 1 else None


@dataclass(frozen=True)
class Wishes:
    """What is asked for, and a sentence for each thing that is not there."""

    wishes: tuple[Wish, ...]
    problems: tuple[str, ...] = ()


def wishes(settings: NodeSettings) -> Wishes:
    """Look the named models up, or take all there are if none is named.

    Reads files.
    """
    problems: list[str] = []
    shelf = Shelf()
    try:
        shelf = scan(settings.models_dir)
    except OSError as error:
        said = f"cannot read the models folder {settings.models_dir}: {error.strerror}"
        problems.append(said)
    found: list[Wish] = []
    for each in _named(settings, shelf):
        found += [each] if isinstance(each, Wish) else []
        problems += [each.reason] if isinstance(each, Unfit) else []
    if not settings.models:
        problems += [each.reason for each in shelf.unfit]
        found += _everything(shelf, choose=_choosy(settings))
    if not found and not problems:
        where = settings.models_dir
        problems.append(f"no model in {where}; `edgeserve pull` fetches one")
    return Wishes(tuple(found), tuple(problems))


def _choosy(settings: NodeSettings) -> bool:
    return bool(settings.min_speed or settings.min_quality)


def _everything(shelf: Shelf, *, choose: bool) -> list[Wish]:
    """Wish for every variant, smallest first, or for one of each model."""
    models = sorted(shelf.models, key=lambda each: each.facts.file_bytes)
    if not choose:
        return [Wish((each,), each.role) for each in models]
    variants: dict[tuple[str, Role], list[Model]] = {}
    for each in models:
        variants.setdefault((each.model, each.role), []).append(each)
    return [Wish(tuple(v), role, logical=True) for (_, role), v in variants.items()]


def _named(settings: NodeSettings, shelf: Shelf) -> Iterator[Wish | Unfit]:
    asked: tuple[tuple[Role, tuple[str, ...]], ...] = (
        ("generate", settings.models),
        ("embeddings", settings.embedding_models),
        ("rerank", settings.rerank_models),
    )
    for role, names in asked:
        for name in names:
            yield from _meant(name, role, settings.models_dir, shelf)


def _meant(name: str, role: Role, folder: Path, shelf: Shelf) -> Iterator[Wish | Unfit]:
    """Yield what a name means: a file, a model, one of its variants, or all of them."""
    for file in (Path(name).expanduser(), folder / name, folder / f"{name}.gguf"):
        if file.is_file():
            found = look(file)
            yield Wish((found,), role) if isinstance(found, Model) else found
            return
    wanted = normal(name.removesuffix(ALL))
    there = [each for each in shelf.models if wanted in _names(each)]
    if not there:
        known = ", ".join(each.variant for each in shelf.models) or "nothing"
        why = f"no file and no model {name!r} in {folder}; there is {known}"
        yield Unfit(folder / name, why)
    elif name.endswith(ALL):
        yield from (Wish((each,), role) for each in there)
    else:
        yield Wish(tuple(there), role, logical=wanted == there[0].model)


def _names(model: Model) -> set[str]:
    return {model.model, model.variant, normal(model.path.name)}
