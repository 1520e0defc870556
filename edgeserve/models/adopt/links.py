"""Links to adopted models: what is to do in the models folder, and doing it.

A link is all that is ever made, replaced or removed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeserve.models.adopt.checks import NotAdoptable, noted
from edgeserve.models.adopt.ollama import ollama_models
from edgeserve.models.adopt.stores import Adoptable, Found, Link, Store
from edgeserve.models.adopt.trees import folder_models, hub_models
from edgeserve.runtime.files import replacing

ADOPTED = "adopted"
"""Folder of the links, in the models folder."""


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """What adopting a store does: links to make, and links whose file is gone.

    `known` models are there already, each with the path: that of their link, or of
    another file that is the same or would have the same name on nodes.
    """

    found: Found
    new: tuple[Adoptable, ...]
    known: tuple[tuple[Adoptable, Path], ...]
    gone: tuple[Path, ...]
    problems: tuple[str, ...]


def find(store: Store, folder: Path) -> Found:
    """Look through a store; reads headers. `folder` is our own models folder."""
    problems = list[str]()
    models = list[Adoptable]()
    with noted(problems):
        own = Path(os.path.realpath(folder))
        if store.root.is_relative_to(own):
            raise NotAdoptable(f"{store.root}: is in the models folder already")
        next(store.root.iterdir(), None)  # says why it cannot be read
        match store.kind:
            case "ollama":
                models += ollama_models(store.root, problems)
            case "huggingface":
                models += hub_models(store.root, problems)
            case _:
                models += folder_models(store.root, problems, own)
    return Found(store=store, models=tuple(models), problems=tuple(problems))


def plan_links(
    found: Sequence[Found], folder: Path, named: Mapping[str, Path]
) -> list[Adoption]:
    """Compare what was found with the models folder.

    `named` has the variants there, with their paths.
    """
    taken = _Taken(dict(_ends(folder / ADOPTED)), dict(named))
    return [_adoption(each, folder, taken) for each in found]


@dataclass(frozen=True)
class _Taken:
    """Ends of links, and variants: each with the path that has it, or will."""

    ends: dict[Path, Path]
    variants: dict[str, Path]

    def by(self, model: Adoptable, at: Path) -> Path:
        """Return the path that stands for a model; its own, `at`, if none does."""
        end = self.ends.setdefault(model.links[-1].target, at)
        return end if end != at else self.variants.setdefault(model.variant, at)


def _ends(folder: Path) -> Iterator[tuple[Path, Path]]:
    return ((target, path) for path, target in _links_in(folder))


def _adoption(found: Found, folder: Path, taken: _Taken) -> Adoption:
    new, known = list[Adoptable](), list[tuple[Adoptable, Path]]()
    problems = list(found.problems)
    for model in found.models:
        at = place(model.links[-1], found.store, folder)
        with noted(problems):
            wanting = [each for each in model.links if _wants(each, found, folder)]
            other = taken.by(model, at)
            if other != at or not wanting:
                known.append((model, other))
            else:
                new.append(model)
    gone = [
        path
        for path, target in _links_in(folder / ADOPTED)
        if target.is_relative_to(found.store.root) and _is_gone(target)
    ]
    return Adoption(
        found=found,
        new=tuple(new),
        known=tuple(known),
        gone=tuple(gone),
        problems=tuple(problems),
    )


def place(link: Link, store: Store, folder: Path) -> Path:
    """Return where a link lies."""
    return folder / ADOPTED / store.name / link.path


def _wants(link: Link, found: Found, folder: Path) -> bool:
    """Whether a link is missing, or leads elsewhere. Raises NotAdoptable."""
    at = place(link, found.store, folder)
    if at.is_symlink():
        return at.readlink() != link.target
    if os.path.lexists(at):
        raise NotAdoptable(f"{at}: is no link; it is left as it is")
    return True


def _is_gone(target: Path) -> bool:
    """Whether there is no such file; one that may not be looked at is there."""
    try:
        target.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _links_in(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each link below a folder, and its end; links to folders are left out."""
    for here, _, names in os.walk(folder):
        for name in names:
            path = Path(here, name)
            if path.is_symlink():
                yield path, path.readlink()


def adopt(adoption: Adoption, folder: Path) -> list[str]:
    """Make and remove links. Returns a sentence for each that could not be made."""
    problems = list[str]()
    for path in adoption.gone:
        with noted(problems):
            path.unlink()
    for model in adoption.new:
        with noted(problems):
            for each in model.links:
                _make(each, place(each, adoption.found.store, folder), folder)
    return problems


def _make(link: Link, at: Path, folder: Path) -> None:
    own = Path(os.path.realpath(folder), at.parent.relative_to(folder))
    if Path(os.path.realpath(at.parent)) != own:
        raise NotAdoptable(f"{at}: a folder on the way is a link; remove that first")
    if at.is_symlink() and at.readlink() == link.target:
        return
    at.parent.mkdir(parents=True, exist_ok=True)
    with replacing(at, durable=False) as part:
        part.symlink_to(link.target)
