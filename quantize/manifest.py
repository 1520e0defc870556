"""Manifest: a JSON file beside the variants that records how each was made.

An interrupted run resumes from it, and it tells later how a file was made.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgeserve.errors import CommandError, in_words
from edgeserve.models.naming import stem
from edgeserve.runtime.files import read_json

FORMAT = 1


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Recipe of a variant: everything that determines its bytes.

    `base` and `imatrix` are fingerprints; `overrides` are given as `regex=TYPE`.
    """

    base: str
    type: str
    overrides: tuple[str, ...] = ()
    imatrix: str | None = None


class MadeVariant(msgspec.Struct, frozen=True, kw_only=True):
    """Record of one finished file.

    `tensors` counts them by type; `remark` says which did not fit into their type.
    """

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
    """The variants of one base in one folder, by type."""

    format: int = FORMAT
    base: str
    dequantized_from: str | None = None
    variants: dict[str, MadeVariant] = {}

    def with_variant(self, made: MadeVariant) -> Manifest:
        """Return the manifest with a file added or replaced."""
        variants = {**self.variants, made.recipe.type: made}
        return msgspec.structs.replace(self, variants=variants)


class BadManifest(CommandError):
    """The manifest beside the variants cannot be read."""


def manifest_path(folder: Path, base: Path) -> Path:
    """Return the path of the manifest of `base`."""
    return folder / f"{stem(base)}.variants.json"


def read_manifest(path: Path) -> Manifest | None:
    """Read a manifest; None if the file does not exist. Raises BadManifest."""
    try:
        return read_json(path, Manifest)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadManifest(
            f"{path} is not a manifest ({in_words(error)}); move it away to start"
            " without it"
        ) from error
