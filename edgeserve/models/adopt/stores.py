"""Stores: the folders in which other programs keep models, known by their form."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from edgeserve.errors import SettingsError, in_words

Kind = Literal["lmstudio", "ollama", "huggingface", "folder"]

TITLES: dict[Kind, str] = {
    "lmstudio": "LM Studio",
    "ollama": "Ollama",
    "huggingface": "Hugging Face cache",
    "folder": "folder",
}

REPOSITORY = "models--"
"""Begin of the name of a repository's folder in the Hugging Face cache."""

LM_STUDIO = (".lmstudio/models", ".cache/lm-studio/models")
OLLAMA = (".ollama/models", "/usr/share/ollama/.ollama/models")
WITHIN = ("models", "hub")
"""Where in a program's own folder its models are: `~/.ollama`, `$HF_HOME`."""


@dataclass(frozen=True)
class Store:
    """A folder of models; `root` is its true path."""

    kind: Kind
    root: Path

    @property
    def name(self) -> str:
        """Where its links lie in `adopted/`."""
        return (self.root.name or "root") if self.kind == "folder" else self.kind

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{TITLES[self.kind]} at {self.root}"


@dataclass(frozen=True)
class Link:
    """A link to make: its path below the store's folder in `adopted/`, and its end."""

    path: PurePath
    target: Path


@dataclass(frozen=True, kw_only=True)
class Adoptable:
    """A model of another program. `name` is that program's name for it.

    `variant` is what nodes will call it. The first part comes last: a model is seen
    when it is complete.
    """

    name: str
    variant: str
    size: int
    links: tuple[Link, ...]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a store has, and a sentence for each thing that cannot be adopted."""

    store: Store
    models: tuple[Adoptable, ...]
    problems: tuple[str, ...]


def usual(environ: Mapping[str, str], home: Path) -> list[Store]:
    """Return the stores that are where their programs usually keep them.

    One that may not be looked at is among them, so that this is said.
    """
    found = dict[Path, Store]()
    for kind, path in _usual_places(environ, home):
        if _there(path):
            root = Path(os.path.realpath(path))
            found.setdefault(root, Store(kind, root))
    return list(found.values())


def _there(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError:
        return True
    except OSError:
        return False


def _usual_places(
    environ: Mapping[str, str], home: Path
) -> Iterator[tuple[Kind, Path]]:
    for place in LM_STUDIO:
        yield "lmstudio", home / place
    named = environ.get("OLLAMA_MODELS")
    for each in [_expanded(named)] if named else [home / place for place in OLLAMA]:
        yield "ollama", each
    cache = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    above = environ.get("XDG_CACHE_HOME") or home / ".cache"
    hf_home = environ.get("HF_HOME") or Path(above, "huggingface")
    yield "huggingface", _expanded(cache or Path(hf_home, "hub"))


def _expanded(path: str | Path) -> Path:
    """Return a path without `~`, which stays where there is no home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111 - the other one raises


def recognised(path: Path) -> Store:
    """Return the store at a path, by its form. Raises SettingsError."""
    try:
        root = path.expanduser().resolve(strict=True)
        names = {each.name for each in root.iterdir()}
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a loop
        raise SettingsError(f"{path} cannot be read: {_why(path, error)}") from error
    if kind := _form(names):
        return Store(kind, root)
    for name in WITHIN:
        below = root / name
        if name in names and (kind := _form_of(below, program=root.name)):
            return Store(kind, Path(os.path.realpath(below)))
    return Store("lmstudio" if _is_lm_studio(root) else "folder", root)


def _why(path: Path, error: BaseException) -> str:
    if isinstance(error, NotADirectoryError):
        return f"it is a file; name its folder, or copy it: `edgeserve pull {path}`"
    return in_words(error)


def _form(names: set[str]) -> Kind | None:
    if {"manifests", "blobs"} <= names:
        return "ollama"
    hub = any(each.startswith(REPOSITORY) for each in names)
    return "huggingface" if hub else None


def _form_of(below: Path, program: str) -> Kind | None:
    """Return the form of a program's folder of models; None for another folder."""
    try:
        names = {each.name for each in below.iterdir()}
    except (OSError, RuntimeError):
        return None
    return _form(names) or (
        "lmstudio" if _is_lm_studio(Path(program, "models")) else None
    )


def _is_lm_studio(folder: Path) -> bool:
    return folder.parts[-2:] in {(".lmstudio", "models"), ("lm-studio", "models")}
