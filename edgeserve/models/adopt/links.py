"""Links to adopted models: what is to do in the models folder, and doing it.

A link is all that is ever made, replaced or removed here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
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

    `known` models have their links already, `elsewhere` under another name.
    """

    found: Found
    new: tuple[Adoptable, ...]
    known: tuple[Adoptable, ...]
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


def plan_links(found: Sequence[Found], folder: Path) -> list[Adoption]:
    """Compare what was found with the links in the models folder."""
    linked = {target: path for path, target in _links_in(folder / ADOPTED)}
    return [_adoption(each, folder, linked) for each in found]


def _adoption(found: Found, folder: Path, linked: dict[Path, Path]) -> Adoption:
    new, known, problems = list[Adoptable](), list[Adoptable](), list(found.problems)
    for model in found.models:
        main = model.links[-1]
        at = place(main, found.store, folder)
        other = linked.setdefault(main.target, at)
        with noted(problems):
            wanting = [each for each in model.links if _wants(each, found, folder)]
            if not wanting or other != at:
                known.append(model)
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
