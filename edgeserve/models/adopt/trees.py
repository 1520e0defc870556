"""Trees of model files: LM Studio's folder, the Hugging Face cache, any folder.

Links keep the names and folders of the files, so that parts and projectors stay beside
their models. Links to folders are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from edgeserve.models.adopt.checks import NotAdoptable, inside, noted, understood, why
from edgeserve.models.adopt.stores import REPOSITORY, Adoptable, Link
from edgeserve.models.facts import parts
from edgeserve.models.naming import (
    is_gguf,
    is_later_part,
    is_projector,
    named,
    projector_of,
)
from edgeserve.runtime.files import read_text

MOST_FOLDERS = 20_000
"""Folders that are looked at in one store."""

LONGEST_REF = 256

Files = Mapping[PurePath, Path]
"""Path of a link → the file in the store."""


def folder_models(
    root: Path, problems: list[str], apart: Path | None = None
) -> Iterator[Adoptable]:
    """Yield the models in a folder and below, but for what is in `apart`."""
    walked = _walked(root, problems, apart)
    files = {PurePath(path.relative_to(root)): path for path in walked}
    yield from _models(files, root, problems)


def hub_models(root: Path, problems: list[str]) -> Iterator[Adoptable]:
    """Yield the models in the Hugging Face cache, of a repository's latest commit."""
    with noted(problems):
        for repository in sorted(root.iterdir()):
            org, _, name = repository.name.removeprefix(REPOSITORY).partition("--")
            if repository.name.startswith(REPOSITORY):
                within = PurePath(org, name) if name else PurePath(org)
                yield from _repository(repository, within, problems)


def _repository(
    repository: Path, within: PurePath, problems: list[str]
) -> Iterator[Adoptable]:
    known = set[PurePath]()
    with noted(problems):
        root = inside(repository.parent, repository)
        for snapshot in _snapshots(root):
            files = {
                within / path.relative_to(snapshot): path
                for path in _walked(snapshot, problems)
            }
            older = {each: files[each] for each in files if each not in known}
            known |= files.keys()
            yield from _models(older, root, problems)


def _snapshots(repository: Path) -> list[Path]:
    """Return a folder for each commit, that of the main branch first, then by age."""
    try:
        main = read_text(repository / "refs" / "main", LONGEST_REF).strip()
    except OSError:  # not every commit has a name
        main = ""
    snapshots = repository / "snapshots"
    try:
        found = [each for each in snapshots.iterdir() if not each.is_symlink()]
    except FileNotFoundError:
        return []  # nothing has come yet
    return sorted(found, key=lambda each: (each.name != main, -each.stat().st_mtime))


def _walked(
    root: Path, problems: list[str], apart: Path | None = None
) -> Iterator[Path]:
    """Yield the GGUF files below a folder."""

    def unread(error: OSError) -> None:
        problems.append(f"{error.filename}: cannot be read: {why(error)}")

    for looked, (here, folders, names) in enumerate(os.walk(root, onerror=unread)):
        if looked >= MOST_FOLDERS:
            problems.append(f"{root}: has more than {MOST_FOLDERS:,} folders; name one")
            return
        place = Path(here)
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and place / name != apart
        ]
        problems += [
            f"{place / name}: is a link to another folder; name that one instead"
            for name in folders
            if (place / name).is_symlink()
        ]
        yield from (path for name in sorted(names) if is_gguf(path := place / name))


def _models(files: Files, root: Path, problems: list[str]) -> Iterator[Adoptable]:
    for path, file in files.items():
        if not is_projector(file) and not is_later_part(file):
            with noted(problems):
                yield _model(path, file, files, root)


def _model(path: PurePath, file: Path, files: Files, root: Path) -> Adoptable:
    ends = {each: inside(root, each) for each in parts(file)}
    beside = [each for at, each in files.items() if at.parent == path.parent]
    facts = understood(file)
    if projector := projector_of(file, beside):
        ends[projector] = inside(root, projector)
    if ".." in path.parts or path.is_absolute():
        raise NotAdoptable(f"{file}: its folder has an impossible name")
    links = (Link(path.with_name(each.name), end) for each, end in ends.items())
    model, label = named(file, facts.type_label)
    return Adoptable(
        name=str(path),
        variant=f"{model}:{label}",
        size=sum(end.stat().st_size for end in ends.values()),
        links=tuple(reversed(list(links))),
    )
