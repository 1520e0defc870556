"""Order to remove a model's files from a node, and what it removes. Pure."""

from __future__ import annotations

import msgspec

REMOVE = "/edgeserve/v1/models/remove"


class RemoveModel(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a node to remove a model's files, or, with `preview`, what that would do.

    `model` is a variant, a model of one variant, `model:*`, a file's name, or its path
    in the models folder.
    """

    model: str
    preview: bool = False


class RemovedFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file; `path` begins at the models folder. Of a link, only the link goes.

    `bytes` come free; `target` is the file that a link leads to.
    """

    path: str
    bytes: int
    target: str = ""


class RemovedModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a node removes: the names of variants, and the files in all."""

    variants: tuple[str, ...]
    files: tuple[RemovedFile, ...]
