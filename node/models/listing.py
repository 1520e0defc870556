"""Listing: look at the models folder, and at the files that the settings name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.models.naming import is_gguf
from edgeserve.runtime.files import stamp
from node.models.changes import Listing
from node.models.library import model_files
from node.models.selection import files_named


def look_at(settings: NodeSettings) -> Listing:
    """Return every model file with its stamp; opens none of them.

    A missing folder is empty. Raises OSError where the folder itself cannot be read.
    """
    files, unread = list[Path](), list[Path]()
    if os.path.lexists(settings.models_dir):
        files, unusable = model_files(settings.models_dir)
        unread = [each.path for each in unusable]
    stamps = {path: stamp(path) for path in (*files, *_named(settings))}
    there = {path: found for path, found in stamps.items() if found}
    return Listing(there, frozenset(unread))


def _named(settings: NodeSettings) -> Iterator[Path]:
    """Yield the files that are named by their path, and what lies beside them."""
    asked = (settings.models, settings.embedding_models, settings.rerank_models)
    for name in (name for names in asked for name in names):
        file = next(
            (f for f in files_named(name, settings.models_dir) if f.is_file()), None
        )
        if file is None:
            continue
        yield file
        try:
            yield from (each for each in file.parent.iterdir() if is_gguf(each))
        except OSError:
            continue  # the file itself can be looked at
