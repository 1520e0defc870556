"""Steps of a conversion: refuse early, convert, check, then give the file its name."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgeserve.cli.convert.answer import checked_by_answer
from edgeserve.cli.convert.checkpoint import Checkpoint, in_hub_cache, read_checkpoint
from edgeserve.cli.convert.conversion import Conversion, convert, require_extra
from edgeserve.cli.convert.converter import converter
from edgeserve.cli.convert.original import original_tokens
from edgeserve.errors import CommandError
from edgeserve.models.facts import read
from edgeserve.models.memory import size
from edgeserve.models.naming import variant_path
from edgeserve.runtime.files import alone_in, part_of
from node.engine_build.source import Show
from node.engines.base import Engine
from node.engines.bundled import bundled


class NotConvertible(CommandError):
    """The conversion would overwrite a file, fill the disk or run unknown code."""


@dataclass(frozen=True, kw_only=True)
class ConvertOptions:
    """What to convert, to what and where. `source` None: the usual llama.cpp."""

    folder: Path
    kind: str
    state_dir: Path
    outfile: Path | None = None
    source: Path | None = None
    overwrite: bool = False
    check: bool = True
    trust_code: bool = False


@dataclass(frozen=True)
class Converted:
    """A GGUF that was made; `said`: sentences of the check, none without it."""

    path: Path
    bytes: int
    said: tuple[str, ...]


def converted(options: ConvertOptions, show: Show) -> Converted:
    """Make a GGUF. Raises CommandError, and leaves nothing behind then."""
    checkpoint = read_checkpoint(options.folder)
    target = _target(options, checkpoint)
    _refuse(options, checkpoint, target)
    require_extra()
    engine = bundled() if options.check else None
    target.parent.mkdir(parents=True, exist_ok=True)
    _refuse_full_disk(checkpoint.bytes_as(options.kind), target)
    with (
        converter(options.source, options.state_dir, show) as scripts,
        alone_in(target.parent),
        part_of(target) as part,
    ):
        convert(_conversion(options, checkpoint, scripts, part), show)
        said = _check(part, engine, options, show)
        length = part.stat().st_size
    return Converted(target, length, said)


def _conversion(
    options: ConvertOptions, checkpoint: Checkpoint, scripts: Path, part: Path
) -> Conversion:
    return Conversion(
        scripts=scripts,
        folder=checkpoint.folder,
        target=part,
        kind=options.kind,
        tensors=checkpoint.tensors,
        log=options.state_dir / "converter" / "convert.log",
        name=checkpoint.name if in_hub_cache(checkpoint.folder) else None,
    )


def _check(
    part: Path, engine: Engine | None, options: ConvertOptions, show: Show
) -> tuple[str, ...]:
    """Read the file's facts, and with an engine have it answer. Raises CommandError."""
    facts = read(part)
    if engine is None:
        return ()
    show("checking", 0, 2)
    folder = options.folder.absolute()
    original = original_tokens(folder, trust_code=options.trust_code)
    show("checking", 1, 2)
    said = checked_by_answer(engine, facts, options.state_dir, original)
    show("checking", 2, 2)
    return said


def _target(options: ConvertOptions, checkpoint: Checkpoint) -> Path:
    """Return the path to write to; by default in the folder, as other commands do."""
    named = options.outfile
    if named is not None and not named.is_dir():
        return named.absolute()
    base = checkpoint.folder / f"{checkpoint.name}.gguf"
    return variant_path(named or checkpoint.folder, base, options.kind.upper())


def _refuse(options: ConvertOptions, checkpoint: Checkpoint, target: Path) -> None:
    if target.exists() and not options.overwrite:
        raise NotConvertible(f"{target} exists; --overwrite replaces it")
    if checkpoint.code and not options.trust_code:
        raise NotConvertible(
            f"{', '.join(checkpoint.code)} in {checkpoint.folder} have Python code of"
            " the model loaded, which could do anything here; if you have read and"
            " trust it, add --trust-code"
        )


def _refuse_full_disk(wanted: int, target: Path) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < wanted:
        raise NotConvertible(
            f"{target.parent} has {size(free)} free, but about {size(wanted)} are"
            " needed; name another --outfile or a smaller --type"
        )
