"""Removal: which files of the models folder belong to a name, and removing them.

Only what lies in the folder itself is removed: of a link the link, and nothing below a
link to another folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edgeserve.errors import BadRequest, EdgeserveError, in_words
from edgeserve.models.facts import parts
from edgeserve.models.naming import is_projector, seen_for
from edgeserve.openai import normal
from edgeserve.orders.removal import RemovedFile, RemovedModel
from node.models.library import Model, ModelLibrary, model_files, scan
from node.models.selection import ALL


class NoSuchModelFile(EdgeserveError):
    """The models folder has nothing of that name."""

    status = 404
    code = "model_not_found"


class NotRemovable(EdgeserveError):
    """A file cannot be removed; the sentence says why."""

    status = 409
    code = "not_removable"


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What is to go: full paths, the first part of a model after its other files.

    So a removal that is interrupted can be given again. `models` are those that go,
    `unusable` are files that no engine can have.
    """

    folder: Path
    models: tuple[Model, ...]
    unusable: tuple[Path, ...]

    files: tuple[Path, ...]

    @property
    def shown(self) -> RemovedModel:
        """The same for people, with sizes; looks at the files."""
        return RemovedModel(
            variants=tuple(dict.fromkeys(each.variant for each in self.models)),
            files=tuple(_shown(each, self.folder) for each in reversed(self.files)),
        )


def removal(folder: Path, name: str) -> Removal:
    """Find what a name means; reads headers.

    Raises NoSuchModelFile, NotRemovable, BadRequest where it means several models.
    """
    try:
        library = scan(folder)
        files, _ = model_files(folder) if os.path.lexists(folder) else ([], [])
    except OSError as error:
        raise NotRemovable(f"cannot read {folder}: {in_words(error)}") from error
    models = _models(library, name, folder)
    paths = {each.path for each in models}
    broken = [each.path for each in library.unusable if _is(each.path, name, folder)]
    if not models and not broken:
        there = ", ".join(each.variant for each in library.models) or "nothing"
        raise NoSuchModelFile(f"no model {name!r} in {folder}; there is {there}")
    staying = [each for each in library.models if each.path not in paths]
    going = [
        *_projectors(models, staying, files),
        *(part for each in models for part in reversed(each.facts.files)),
        *(part for each in broken for part in reversed(parts(each))),
    ]
    for each in going:
        _check_ours(each, folder)
    return Removal(
        folder=folder,
        models=tuple(models),
        unusable=tuple(broken),
        files=tuple(each for each in dict.fromkeys(going) if os.path.lexists(each)),
    )


def _models(library: ModelLibrary, name: str, folder: Path) -> list[Model]:
    """Return the models of a name. Raises BadRequest if it leaves a choice."""
    by_file = [each for each in library.models if _is(each.path, name, folder)]
    wanted = normal(name.removesuffix(ALL))
    found = by_file or [
        each for each in library.models if wanted in {each.model, each.variant}
    ]
    variants = sorted({each.variant for each in found})
    if len(found) > 1 and not name.endswith(ALL):
        if len(variants) > 1:
            names = (
                f"{', '.join(variants)}; {variants[0].partition(':')[0]}{ALL} is all"
            )
        else:
            names = ", ".join(str(each.path.relative_to(folder)) for each in found)
        raise BadRequest(f"{name!r} is several models; name one: {names}")
    return found


def _is(path: Path, name: str, folder: Path) -> bool:
    """Whether a name is that of a file, or its path in the folder."""
    below = path.relative_to(folder) if path.is_relative_to(folder) else path
    return str(below) == name or normal(path.name) == normal(name)


def _projectors(
    models: Collection[Model], staying: Iterable[Model], files: Iterable[Path]
) -> list[Path]:
    """Return the projectors, in every precision, that no other model uses."""
    unused = _seen(models) - _seen(staying)
    return [each for each in files if is_projector(each) and _key(each) in unused]


def _seen(models: Iterable[Model]) -> set[tuple[Path, str]]:
    return {_key(each.projector) for each in models if each.projector}


def _key(projector: Path) -> tuple[Path, str]:
    return projector.parent, seen_for(projector)


def _check_ours(path: Path, folder: Path) -> None:
    """Raise NotRemovable where the way to a file leads through a link."""
    here = path.parent
    while here != folder and here != here.parent:
        if here.is_symlink():
            raise NotRemovable(
                f"{path} lies in {os.path.realpath(here)}, to which {here} is a link;"
                " remove it there, or the link"
            )
        here = here.parent


def _shown(path: Path, folder: Path) -> RemovedFile:
    below = str(path.relative_to(folder))
    if path.is_symlink():
        return RemovedFile(path=below, bytes=0, target=os.path.realpath(path))
    return RemovedFile(path=below, bytes=path.stat().st_size)


def remove(removal: Removal) -> RemovedModel:
    """Remove the files, and folders that become empty. Raises NotRemovable."""
    try:
        gone = removal.shown
        for each in removal.files:
            each.unlink(missing_ok=True)
    except OSError as error:
        raise NotRemovable(
            f"cannot remove {error.filename}: {in_words(error)}"
        ) from error
    for each in removal.files:
        _remove_empty(each.parent, removal.folder)
    return gone


def _remove_empty(here: Path, folder: Path) -> None:
    with suppress(OSError):  # the first one that is not empty, as a rule
        while here != folder and here.is_relative_to(folder):
            here.rmdir()
            here = here.parent
