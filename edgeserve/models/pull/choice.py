"""Choice of files: which GGUFs of a repository are one model. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgeserve.errors import CommandError
from edgeserve.models.naming import SPLIT, is_projector, projector_of
from edgeserve.quantization import ALIASES, TYPES, loss

USUAL = "Q4_K_M"
"""What is taken where no quantization is named, if it is there."""

_LABEL = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q\d|TQ\d|BF16|F16|F32|FP16|FP32|MXFP4)[A-Z0-9_]*)$",
    re.IGNORECASE,
)


class NoSuchVariant(CommandError):
    """The repository has no such model; the sentence lists what it has."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file of a repository. `size` in bytes; `sha256` is empty where unknown.

    `cached` is the path of a copy on this machine.
    """

    name: str
    size: int
    sha256: str = ""
    cached: Path | None = None

    @property
    def path(self) -> PurePosixPath:
        """The path within the repository."""
        return PurePosixPath(self.name)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One model: its parts, then its projector; `others` are labels not taken."""

    label: str
    parts: tuple[RemoteFile, ...]
    projector: RemoteFile | None = None
    others: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[RemoteFile, ...]:
        """Every file, the first part of the model first."""
        return (*self.parts, *((self.projector,) if self.projector else ()))


def choose(repo: str, files: Iterable[RemoteFile], quant: str = "") -> Choice:
    """Choose the model with this quantization, or the usual one. Raises NoSuchVariant.

    Of none named, Q4_K_M is taken, else the smallest that is as good, else the best.
    """
    every = tuple(files)
    groups = _groups(each for each in every if _is_model(each))
    if not groups:
        raise NoSuchVariant(_none(repo, every))
    if quant:
        found = _matching(groups, quant)
    else:
        usual = _usual({_label(each[0]) for each in groups})
        found = [each for each in groups if _label(each[0]) == usual]
    if len(found) != 1:
        raise NoSuchVariant(_which(repo, groups, found, quant))
    return _choice(repo, every, groups, found[0])


def choose_file(repo: str, files: Iterable[RemoteFile], name: str) -> Choice:
    """Choose the model that this file belongs to. Raises NoSuchVariant."""
    every = tuple(files)
    groups = _groups(each for each in every if each.path.suffix.lower() == ".gguf")
    for group in groups:
        if any(each.name == name for each in group):
            return _choice(repo, every, groups, group)
    there = ", ".join(group[0].name for group in groups) or "no GGUF file"
    raise NoSuchVariant(f"{repo} has no file {name}; there is {there}")


Group = tuple[RemoteFile, ...]


def _is_model(file: RemoteFile) -> bool:
    path = file.path
    return (
        path.suffix.lower() == ".gguf"
        and not is_projector(Path(path.name))
        and "imatrix" not in path.name.lower()
    )


def _groups(files: Iterable[RemoteFile]) -> list[Group]:
    """Put the parts of split models together."""
    found: dict[PurePosixPath, list[RemoteFile]] = {}
    for each in sorted(files, key=lambda file: file.name):
        key = each.path.with_name(SPLIT.sub("", each.path.stem))
        found.setdefault(key, []).append(each)
    return [tuple(parts) for parts in found.values()]


def _label(file: RemoteFile) -> str:
    """Return the quantization in a file's name, else in its folder's."""
    for text in (SPLIT.sub("", file.path.stem), file.path.parent.name):
        if found := _LABEL.search(text):
            label = found[1].upper()
            return ALIASES.get(label, label)
    return ""


def _matching(groups: list[Group], quant: str) -> list[Group]:
    wanted = quant.upper()
    if wanted.endswith(".GGUF"):
        return [each for each in groups if each[0].path.name.upper() == wanted]
    wanted = ALIASES.get(wanted, wanted)
    exact = [each for each in groups if _label(each[0]) == wanted]
    return exact or [
        each for each in groups if _label(each[0]).removeprefix("UD-") == wanted
    ]


def _usual(labels: set[str]) -> str:
    """Return the label to take where none is named."""
    if USUAL in labels or len(labels) == 1:
        return USUAL if USUAL in labels else next(iter(labels))
    losses = {each: lost for each in labels if (lost := loss(each)) is not None}
    enough = loss(USUAL) or 0.0
    good = {each: lost for each, lost in losses.items() if lost <= enough}
    if good:
        return max(good, key=lambda each: (good[each], each in TYPES, each))
    return min(losses, key=lambda each: (losses[each], each), default="")


def _choice(
    repo: str, every: Sequence[RemoteFile], groups: list[Group], parts: Group
) -> Choice:
    split = SPLIT.search(parts[0].path.stem)
    if split and len(parts) != int(split[2]):
        raise NoSuchVariant(
            f"{repo} has {len(parts)} of the {int(split[2])} parts of {parts[0].name};"
            " the rest may still be on its way there"
        )
    label = _label(parts[0])
    others = sorted({_label(each[0]) for each in groups} - {label, ""})
    projector = _projector(every, parts[0])
    return Choice(label=label, parts=parts, projector=projector, others=tuple(others))


def _projector(every: Sequence[RemoteFile], model: RemoteFile) -> RemoteFile | None:
    """Return the model's projector, from its own folder or from the top."""
    for folder in dict.fromkeys((model.path.parent, PurePosixPath())):
        beside = {
            Path(each.path.name): each
            for each in every
            if each.path.parent == folder
            and each.path.suffix.lower() == ".gguf"
            and is_projector(Path(each.path.name))
        }
        own = Path(model.path.name)
        if own not in beside and (found := projector_of(own, [own, *beside])):
            return beside[found]
    return None


def _none(repo: str, every: Sequence[RemoteFile]) -> str:
    weights = any(each.path.suffix == ".safetensors" for each in every)
    what = (
        "its safetensors have to be converted first, by llama.cpp's"
        " convert_hf_to_gguf.py; often another repository has them as"
        f" {repo.partition('/')[2]}-GGUF"
        if weights
        else "only GGUF files are served"
    )
    return f"{repo} has no GGUF file; {what}"


def _which(repo: str, groups: list[Group], found: list[Group], quant: str) -> str:
    if len(found) > 1 or not any(_label(each[0]) for each in groups):
        names = ", ".join(each[0].name for each in found or groups)
        return (
            f"{repo} has several models{f' as {quant}' if quant else ''}: {names}; name"
            f" one: hf://{repo}/{(found or groups)[0][0].name}"
        )
    labels = ", ".join(sorted({_label(each[0]) for each in groups} - {""}))
    what = f"no {quant}" if quant else "none of the usual quantizations"
    return f"{repo} has {what}; it has {labels}. Name one: {repo}:LABEL"
