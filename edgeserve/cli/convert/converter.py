"""Converter: llama.cpp's own, out of the source that `engine build` compiles.

Its scripts are kept in the state folder, so that the source is fetched once.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from edgeserve.errors import CommandError
from edgeserve.models.memory import size
from edgeserve.runtime.files import replacing, workshop
from node.engine_build.source import PACKAGE, VERSION, Show, Source, source

SCRIPT = "convert_hf_to_gguf.py"
OWN_GGUF = "gguf-py"
"""Its writer of GGUF files; it does not work with the one of the package index."""

PIECES = (SCRIPT, "conversion", OWN_GGUF)

ROOM = 300 * 2**20
"""Free disk needed for a moment: the source, packed and unpacked."""


class NoConverter(CommandError):
    """The source that was named holds no converter, or there is no room for it."""


@contextmanager
def converter(named: Path | None, state_dir: Path, show: Show) -> Generator[Path]:
    """Yield the folder of the converter: of the source `named`, else the usual one.

    Raises NoConverter, or EngineUnavailable where the source cannot be had.
    """
    if named is not None and named.is_dir():
        yield _checked(source(named, named, show))
        return
    home = state_dir / "converter"
    kept = home / f"{PACKAGE}-{VERSION}"
    if named is None and not _missing(kept):
        yield kept
        return
    with workshop(home, "unpacking", lambda: show("waiting", 0, 1)) as work:
        _refuse_full_disk(home)
        found = _checked(source(named, work, show))
        if named is not None:
            yield found
            return
        if _missing(kept):
            shutil.rmtree(kept, ignore_errors=True)
            _keep(found, kept, work / "staged")
    yield kept


def _checked(code: Source) -> Path:
    if missing := _missing(code.folder):
        raise NoConverter(
            f"{code.origin} has no {', '.join(missing)}; take a whole llama.cpp of 2026"
        )
    return code.folder


def _missing(folder: Path) -> list[str]:
    return [name for name in PIECES if not (folder / name).exists()]


def _keep(found: Path, kept: Path, staged: Path) -> None:
    """Keep the scripts by one rename: a folder with that name is always whole."""
    staged.mkdir()
    for name in PIECES:
        shutil.move(found / name, staged / name)
    with replacing(kept, part=staged, durable=False):
        pass


def _refuse_full_disk(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise NoConverter(
            f"{folder} has {size(free)} free, but llama.cpp's source needs {size(ROOM)}"
            " for a moment"
        )
