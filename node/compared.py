"""What `edgeserve quantize compare` measured of a file that lies beside its result."""

from __future__ import annotations

from pathlib import Path

import msgspec

from quantize.naming import stem
from quantize.quality import Comparison


def divergence(file: Path) -> float | None:
    """Return a file's mean KL divergence from its base, in nats, where it was measured.

    A file of another size than the one that was measured is another file.
    """
    record = file.with_name(f"{stem(file)}.compare.json")
    try:
        found = msgspec.json.decode(record.read_bytes(), type=Comparison)
        size = file.stat().st_size
    except (OSError, msgspec.DecodeError):
        return None
    if (found.base.file, found.base.bytes) == (file.name, size):
        return 0.0
    for each in found.variants:
        if (each.file, each.bytes) == (file.name, size):
            return each.quality.divergence[0] if each.quality.divergence else None
    return None
