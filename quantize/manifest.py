"""Manifest: the record beside the variants that says what was made, and how.

It is what lets a broken-off run go on, and what tells later where a file came from.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeserve.errors import CommandError, in_words
from edgeserve.models.naming import stem
from edgeserve.runtime.files import read_json

FORMAT = 1


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides what a variant's bytes will be.

    `base` and `imatrix` are fingerprints; `overrides` as given, `regex=TYPE`.
    """

    base: str
    type: str
    overrides: tuple[str, ...] = ()
    imatrix: str | None = None


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One finished file. `tensors` counts by type, `remark` says what did not fit."""

    file: str
    recipe: Recipe
    bytes: int
    bits: float
    sha256: str
    tensors: dict[str, int]
    remark: str
    seconds: float
    made: str
    library: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All the variants of one base in one folder, by type."""

    format: int = FORMAT
    base: str
    dequantized_from: str | None = None
    variants: dict[str, Made] = {}

    def with_variant(self, made: Made) -> Manifest:
        """Return the manifest with one more file, or a newer one."""
        variants = {**self.variants, made.recipe.type: made}
        return msgspec.structs.replace(self, variants=variants)


class BadManifest(CommandError):
    """The manifest beside the variants cannot be read."""


def manifest_path(folder: Path, base: Path) -> Path:
    """Return where the manifest of the variants of `base` is."""
    return folder / f"{stem(base)}.variants.json"


def read_manifest(path: Path) -> Manifest | None:
    """Read it; None where there is none yet. Raises BadManifest."""
    try:
        return read_json(path, Manifest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadManifest(
            f"{path} is not a manifest ({in_words(error)}); move it away to start"
            " afresh"
        ) from error
