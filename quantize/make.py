"""Making variants: quantize, verify, then rename each finished file."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from edgeserve.errors import CommandError
from edgeserve.models.facts import ModelFacts
from edgeserve.models.header import BrokenModel, read_header
from edgeserve.models.memory import size
from edgeserve.models.naming import variant_path
from edgeserve.quantization import QuantType
from edgeserve.runtime.files import alone_in, fingerprint, part_of, replace_json, sha256
from quantize.imatrix import importance_matrix
from quantize.manifest import (
    MadeVariant,
    Manifest,
    Recipe,
    manifest_path,
    read_manifest,
)
from quantize.overrides import Override, dry_run, pairs
from quantize.plan.variants import Variant
from quantize.worker.child import QuantizerFailed, events, require_library
from quantize.worker.messages import Quantize, TensorBegun


class NotAsPlanned(BrokenModel):
    """The file that was made is not what was planned; the command was right."""

    exit_status = 1


def verify(path: Path, planned: Variant, *, with_imatrix: bool) -> None:
    """Check length, tensor types and quantization metadata.

    Raises NotAsPlanned with the first thing that is not as planned.
    """
    header = read_header(path)
    metadata = header.metadata
    wanted, there = planned.type.ftype, metadata.get("general.file_type")
    if there != wanted:
        raise NotAsPlanned(
            path, f"says general.file_type is {there}, planned was {wanted}"
        )
    if "general.quantization_version" not in metadata:
        raise NotAsPlanned(path, "does not say its quantization version")
    if with_imatrix and "quantize.imatrix.file" not in metadata:
        raise NotAsPlanned(path, "does not say which importance matrix made it")
    kinds = {tensor.name: tensor.kind for tensor in header.tensors}
    for name, kind in planned.kinds.items():
        if kinds.get(name) != kind:
            there = kinds.get(name, "missing")
            raise NotAsPlanned(path, f"tensor {name} is {there}, planned was {kind}")
    if len(kinds) != len(planned.kinds):
        raise NotAsPlanned(path, f"has {len(kinds)} tensors, not {len(planned.kinds)}")
    extra = path.stat().st_size - header.file_bytes
    if extra >= header.alignment:
        raise NotAsPlanned(path, f"has {extra:,} bytes more than its tensors need")


class Refused(CommandError):
    """The command would lose quality, overwrite a file or fill the disk."""


@dataclass(frozen=True, kw_only=True)
class MakeOptions:
    """Options of a run: base, types, folder and how. `threads` 0 uses every core.

    The importance matrix is the file `imatrix`, or is made from the text `calibrate`.
    """

    base: ModelFacts
    types: tuple[QuantType, ...]
    folder: Path
    overrides: tuple[Override, ...] = ()
    imatrix: Path | None = None
    calibrate: Path | None = None
    allow_requantize: bool = False
    overwrite: bool = False
    threads: int = 0


class MakeObserver(Protocol):
    """Observer of a run: is told each step, for progress bars."""

    def calibrating(self, text: Path) -> None:
        """An importance matrix is being made."""

    def planned(self, variants: Iterable[Variant]) -> None:
        """The dry runs of all types are done."""

    def kept(self, made: MadeVariant) -> None:
        """A file of an earlier run is complete and is kept."""

    def begun(self, variant: Variant) -> None:
        """A variant is being made."""

    def tensor(self, index: int, of: int, name: str) -> None:
        """The next tensor of it is being quantized."""

    def checking(self, variant: Variant) -> None:
        """It is written and is now verified and hashed."""

    def made(self, made: MadeVariant) -> None:
        """It is verified and has its final name."""


def make(options: MakeOptions, observer: MakeObserver) -> Manifest:
    """Make every variant that is not there yet; return the manifest of all.

    Raises Refused, QuantizerFailed or BrokenModel; variants made before stay.
    """
    require_library()
    _refuse_requantizing(options)
    _refuse_missing_imatrix(options)
    options.folder.mkdir(parents=True, exist_ok=True)
    with alone_in(options.folder):
        options = _with_imatrix(options, observer)
        variants = [
            dry_run(options.base, kind, options.overrides, options.imatrix)
            for kind in options.types
        ]
        observer.planned(variants)
        path = manifest_path(options.folder, options.base.path)
        manifest = read_manifest(path) or Manifest(
            base=options.base.path.name,
            dequantized_from=options.base.dequantized_from,
        )
        missing = list[Variant]()
        for each in variants:
            done = _reusable(options, each, manifest)
            if done:
                observer.kept(done)
            else:
                missing.append(each)
        _refuse_full_disk(options, missing)
        for each in missing:
            manifest = manifest.with_variant(_make_one(options, each, observer))
            replace_json(path, manifest)
    return manifest


def _with_imatrix(options: MakeOptions, observer: MakeObserver) -> MakeOptions:
    if options.calibrate is None or options.imatrix is not None:
        return options
    observer.calibrating(options.calibrate)
    matrix = importance_matrix(
        options.base, options.calibrate, options.folder, options.threads
    )
    return replace(options, imatrix=matrix)


def _make_one(
    options: MakeOptions, planned: Variant, observer: MakeObserver
) -> MadeVariant:
    started = time.monotonic()
    target = variant_path(options.folder, options.base.path, planned.type.name)
    with part_of(target) as part:
        _quantize(options, planned, part, observer)
        observer.checking(planned)
        verify(part, planned, with_imatrix=options.imatrix is not None)
        made = MadeVariant(
            file=target.name,
            recipe=_recipe(options, planned.type),
            bytes=part.stat().st_size,
            bits=round(planned.bits, 4),
            sha256=sha256(part),
            tensors=dict(planned.shares),
            remark=planned.remark,
            seconds=round(time.monotonic() - started, 1),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            library=f"llama-cpp-python {version('llama-cpp-python')}",
        )
    observer.made(made)
    return made


def _quantize(
    options: MakeOptions, planned: Variant, part: Path, observer: MakeObserver
) -> None:
    job = Quantize(
        source=str(options.base.path),
        target=str(part),
        ftype=planned.type.ftype,
        allow_requantize=options.allow_requantize,
        threads=options.threads,
        imatrix=str(options.imatrix) if options.imatrix else None,
        overrides=pairs(options.overrides),
    )
    observer.begun(planned)
    try:
        with events(job) as stream:
            for event in stream:
                if isinstance(event, TensorBegun):
                    observer.tensor(event.index, event.of, event.tensor)
    except QuantizerFailed as error:
        free = shutil.disk_usage(options.folder).free
        raise QuantizerFailed(
            f"{planned.type.name}: {error} ({size(free)} free in {options.folder},"
            f" {size(planned.file_bytes)} needed)"
        ) from error


def _recipe(options: MakeOptions, kind: QuantType) -> Recipe:
    return Recipe(
        base=fingerprint(options.base.path),
        type=kind.name,
        overrides=tuple(str(each) for each in options.overrides),
        imatrix=fingerprint(options.imatrix) if options.imatrix else None,
    )


def _reusable(
    options: MakeOptions, planned: Variant, manifest: Manifest
) -> MadeVariant | None:
    """Return the record of a file that need not be made again, else None."""
    target = variant_path(options.folder, options.base.path, planned.type.name)
    if not target.exists():
        return None
    if target.samefile(options.base.path):
        raise Refused(f"{target} is the base itself; name another --out")
    made = manifest.variants.get(planned.type.name)
    if made and made.recipe == _recipe(options, planned.type):
        return made if _is_unchanged(target, planned, made, options) else None
    if not options.overwrite:
        raise Refused(
            f"{target} exists and was not made from this base with these settings;"
            " --overwrite replaces it"
        )
    return None


def _is_unchanged(
    target: Path, planned: Variant, made: MadeVariant, options: MakeOptions
) -> bool:
    try:
        verify(target, planned, with_imatrix=options.imatrix is not None)
    except BrokenModel:
        return False
    return sha256(target) == made.sha256


def _refuse_requantizing(options: MakeOptions) -> None:
    lossy = options.base.quantized_kinds
    if lossy and not options.allow_requantize:
        raise Refused(
            f"{options.base.path} is already quantized ({', '.join(lossy)});"
            " quantizing it again loses more. Use the original, or make a base with"
            " `edgeserve quantize dequantize`, or add --allow-requantize"
        )


def _refuse_missing_imatrix(options: MakeOptions) -> None:
    needing = [kind.name for kind in options.types if kind.needs_imatrix]
    if needing and options.imatrix is None and options.calibrate is None:
        raise Refused(
            f"{', '.join(needing)}: so few bits need an importance matrix;"
            " give --imatrix FILE or --calibrate TEXT"
        )


def _refuse_full_disk(options: MakeOptions, missing: list[Variant]) -> None:
    wanted = sum(each.file_bytes for each in missing)
    free = shutil.disk_usage(options.folder).free
    if wanted > free:
        names = " + ".join(f"{v.type.name} {size(v.file_bytes)}" for v in missing)
        raise Refused(
            f"{options.folder} has {size(free)} free, but {names} = {size(wanted)} are"
            " needed; name fewer types or another --out"
        )
