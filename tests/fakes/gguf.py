"""Synthetic GGUF files for tests: models of any shape, importance matrices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from edgeserve.models.synthetic import Kind, Shape, a_model

__all__ = [
    "Kind",
    "Shape",
    "a_model",
    "an_imatrix",
]


def an_imatrix(
    path: Path,
    entries: Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
) -> Path:
    """Write an importance matrix: tensor → sums of squares and counts per expert."""
    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["text.txt"])
    writer.add_uint32("imatrix.chunk_count", 7)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, (sums, counts) in entries.items():
        writer.add_tensor(f"{name}.in_sum2", sums)
        writer.add_tensor(f"{name}.counts", counts)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
