"""The record beside the variants: what was made, from what, how; JSON.

It is what lets a broken-off run go on, and what tells later where a file came from.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgeserve.errors import CommandError, in_words
from edgeserve.files import read_json
from quantize.naming import stem

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


CHUNK = 2**20
SAMPLES = 64


def sha256(path: Path, step: Callable[[int], None] = lambda _bytes: None) -> str:
    """Hash a whole file; `step` hears of every chunk's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            step(len(chunk))
    return digest.hexdigest()


def fingerprint(path: Path) -> str:
    """Tell files apart in a moment: size, both ends, and samples between them.

    A whole hash of a 15 GB base would take minutes on a Pi.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "little"))
    with path.open("rb") as file:
        for n in range(SAMPLES):
            file.seek(max(0, size - CHUNK // 16) * n // (SAMPLES - 1), os.SEEK_SET)
            digest.update(file.read(CHUNK // 16))
    return digest.hexdigest()[:32]
