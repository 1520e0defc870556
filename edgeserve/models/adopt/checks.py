"""Checks of another program's file: it lies in its store, and is a model."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from edgeserve.errors import CommandError, in_words
from edgeserve.models.facts import ModelFacts, read


class NotAdoptable(CommandError):
    """A file or folder of another program cannot be used; the sentence names it."""


@contextmanager
def noted(problems: list[str]) -> Generator[None]:
    """Turn a NotAdoptable, or a fault of a file in the block, into a sentence."""
    try:
        yield
    except NotAdoptable as error:
        problems.append(str(error))
    except OSError as error:
        problems.append(f"{error.filename}: {why(error)}")


def why(error: BaseException) -> str:
    """Say why a file or folder of another program cannot be read."""
    if isinstance(error, PermissionError):
        return f"{in_words(error)}; the account of the node needs the right to read it"
    return in_words(error)


def inside(root: Path, path: Path) -> Path:
    """Return the file that a path leads to; raises NotAdoptable if outside `root`."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a loop
        raise NotAdoptable(f"{path}: {why(error)}") from error
    if not target.is_relative_to(root):
        raise NotAdoptable(
            f"{path}: leads out of {root}, to {target}; name the folder there instead"
        )
    return target


def understood(path: Path) -> ModelFacts:
    """Read a model's header. Raises NotAdoptable."""
    shown = os.fsencode(path).decode(errors="replace")
    if shown != str(path):
        raise NotAdoptable(f"{shown}: its name is not UTF-8")
    try:
        facts = read(path)
    except CommandError as error:
        raise NotAdoptable(str(error)) from error
    except Exception as error:
        # A crafted header may break anything.
        raise NotAdoptable(f"{shown}: cannot be understood ({error!r})") from error
    kind = str(facts.metadata.get("general.type", "model"))
    if kind != "model" or facts.architecture == "clip":
        what = kind if kind != "model" else "projector"
        raise NotAdoptable(f"{path}: is no model but of the kind {what!r}")
    return facts
