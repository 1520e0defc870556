"""Making variants: quantize, verify, and rename each when it is whole."""

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
from quantize.manifest import Made, Manifest, Recipe, manifest_path, read_manifest
from quantize.overrides import Override, dry_run
from quantize.plan.variants import Variant
from quantize.worker.child import QuantizerFailed, events, require_library
from quantize.worker.messages import Quantize, TensorBegun


class NotAsPlanned(BrokenModel):
    """What was made here is not what was meant; whoever asked for it did no wrong."""

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
    """What was asked would lose quality, overwrite a file or fill the disk."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to make of which base, where. `threads` 0 uses every core.

    An importance matrix is given as `imatrix`, or made from the text `calibrate`.
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


class MakeWatch(Protocol):
    """Hears how far a run is; it decides nothing."""

    def calibrating(self, text: Path) -> None:
        """An importance matrix is being made."""

    def planned(self, variants: Iterable[Variant]) -> None:
        """All the types have been dry-run."""

    def kept(self, made: Made) -> None:
        """A variant of an earlier run is still good."""

    def begun(self, variant: Variant) -> None:
        """A variant is being made."""

    def tensor(self, index: int, of: int, name: str) -> None:
        """One more of its tensors is being worked on."""

    def checking(self, variant: Variant) -> None:
        """It is written, and being verified and hashed."""

    def made(self, made: Made) -> None:
        """It has its name."""


def make(order: Order, watch: MakeWatch) -> Manifest:
    """Make every variant that is not there yet; return the manifest of all.

    Raises Refused, QuantizerFailed or BrokenModel; variants made before stay.
    """
    require_library()
    _refuse_requantizing(order)
    _refuse_missing_imatrix(order)
    order.folder.mkdir(parents=True, exist_ok=True)
    with alone_in(order.folder):
        order = _calibrated(order, watch)
        variants = _planned(order)
        watch.planned(variants)
        manifest = _manifest(order)
        missing = list[Variant]()
        for each in variants:
            done = _finished(order, each, manifest)
            if done:
                watch.kept(done)
            else:
                missing.append(each)
        _refuse_full_disk(order, missing)
        for each in missing:
            manifest = manifest.with_variant(_make_one(order, each, watch))
            replace_json(manifest_path(order.folder, order.base.path), manifest)
    return manifest


def _calibrated(order: Order, watch: MakeWatch) -> Order:
    if order.calibrate is None or order.imatrix is not None:
        return order
    watch.calibrating(order.calibrate)
    matrix = importance_matrix(order.base, order.calibrate, order.folder, order.threads)
    return replace(order, imatrix=matrix)


def _planned(order: Order) -> list[Variant]:
    overrides = tuple((each.pattern, each.number) for each in order.overrides)
    return [dry_run(order.base, kind, overrides, order.imatrix) for kind in order.types]


def _make_one(order: Order, planned: Variant, watch: MakeWatch) -> Made:
    started = time.monotonic()
    target = variant_path(order.folder, order.base.path, planned.type.name)
    with part_of(target) as part:
        _quantize(order, planned, part, watch)
        watch.checking(planned)
        verify(part, planned, with_imatrix=order.imatrix is not None)
        made = Made(
            file=target.name,
            recipe=_recipe(order, planned.type),
            bytes=part.stat().st_size,
            bits=round(planned.bits, 4),
            sha256=sha256(part),
            tensors=dict(planned.shares),
            remark=planned.remark,
            seconds=round(time.monotonic() - started, 1),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
            library=f"llama-cpp-python {version('llama-cpp-python')}",
        )
    watch.made(made)
    return made


def _quantize(order: Order, planned: Variant, part: Path, watch: MakeWatch) -> None:
    job = Quantize(
        source=str(order.base.path),
        target=str(part),
        ftype=planned.type.ftype,
        allow_requantize=order.allow_requantize,
        threads=order.threads,
        imatrix=str(order.imatrix) if order.imatrix else None,
        overrides=tuple((each.pattern, each.number) for each in order.overrides),
    )
    watch.begun(planned)
    try:
        with events(job) as heard:
            for event in heard:
                if isinstance(event, TensorBegun):
                    watch.tensor(event.index, event.of, event.tensor)
    except QuantizerFailed as error:
        free = shutil.disk_usage(order.folder).free
        raise QuantizerFailed(
            f"{planned.type.name}: {error} ({size(free)} free in {order.folder},"
            f" {size(planned.file_bytes)} needed)"
        ) from error


def _recipe(order: Order, kind: QuantType) -> Recipe:
    return Recipe(
        base=fingerprint(order.base.path),
        type=kind.name,
        overrides=tuple(str(each) for each in order.overrides),
        imatrix=fingerprint(order.imatrix) if order.imatrix else None,
    )


def _manifest(order: Order) -> Manifest:
    there = read_manifest(manifest_path(order.folder, order.base.path))
    return there or Manifest(
        base=order.base.path.name, dequantized_from=order.base.dequantized_from
    )


def _finished(order: Order, planned: Variant, manifest: Manifest) -> Made | None:
    """Return the record of a variant that need not be made again."""
    target = variant_path(order.folder, order.base.path, planned.type.name)
    if not target.exists():
        return None
    if target.samefile(order.base.path):
        raise Refused(f"{target} is the base itself; name another --out")
    made = manifest.variants.get(planned.type.name)
    if made and made.recipe == _recipe(order, planned.type):
        if _still_good(target, planned, made, order):
            return made
        return None
    if not order.overwrite:
        raise Refused(
            f"{target} is there already and was not made from this base with these"
            " settings; --overwrite replaces it"
        )
    return None


def _still_good(target: Path, planned: Variant, made: Made, order: Order) -> bool:
    try:
        verify(target, planned, with_imatrix=order.imatrix is not None)
    except BrokenModel:
        return False
    return sha256(target) == made.sha256


def _refuse_requantizing(order: Order) -> None:
    lossy = order.base.quantized_kinds
    if lossy and not order.allow_requantize:
        raise Refused(
            f"{order.base.path} is already quantized ({', '.join(lossy)}), and doing it"
            " again loses more; take the original, or make a plainly named base with"
            " `edgeserve quantize dequantize`, or insist with --allow-requantize"
        )


def _refuse_missing_imatrix(order: Order) -> None:
    needing = [kind.name for kind in order.types if kind.needs_imatrix]
    if needing and order.imatrix is None and order.calibrate is None:
        raise Refused(
            f"{', '.join(needing)}: too few bits to do without an importance matrix;"
            " give --imatrix FILE or --calibrate TEXT"
        )


def _refuse_full_disk(order: Order, missing: list[Variant]) -> None:
    wanted = sum(each.file_bytes for each in missing)
    free = shutil.disk_usage(order.folder).free
    if wanted > free:
        names = " + ".join(f"{v.type.name} {size(v.file_bytes)}" for v in missing)
        raise Refused(
            f"{order.folder} has {size(free)} free, but {names} = {size(wanted)} are"
            " wanted; name fewer types or another --out"
        )
