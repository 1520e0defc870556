"""See that a file is the variant it was meant to be, before it gets its name."""

from __future__ import annotations

from pathlib import Path

from quantize.header import BrokenModel, read_header
from quantize.plan import Variant


class NotAsPlanned(BrokenModel):
    """What was made here is not what was meant; whoever asked for it did no wrong."""

    exit_status = 1


def verify(path: Path, planned: Variant, *, with_imatrix: bool) -> None:
    """Check length, tensor types and quantization metadata.

    Raises NotAsPlanned with the first thing that is not as planned.
    """
    header = read_header(path)
    metadata = header.metadata
    _same(path, "general.file_type", metadata, planned.type.ftype)
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


def _same(path: Path, key: str, metadata: object, wanted: int) -> None:
    there = metadata.get(key) if isinstance(metadata, dict) else None
    if there != wanted:
        raise NotAsPlanned(path, f"says {key} is {there}, planned was {wanted}")
