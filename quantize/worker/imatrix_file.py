"""Importance matrix file: read the weight of each column from a GGUF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeserve.models.header import BrokenModel, Header, Tensor, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True)
class Importance:
    """Importance matrix: tensor name → mean square of each input column, and source."""

    values: dict[str, NDArray[np.float32]]
    dataset: str
    chunks: int


def read_importance(file: str) -> Importance:
    """Read a GGUF written by llama-imatrix.

    Raises BrokenModel for any other file, also for the old `.dat` format.
    """
    path = Path(file)
    header = read_header(path)
    wanted = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")
    if any(key not in header.metadata for key in wanted):
        raise BrokenModel(path, "is not an importance matrix; llama-imatrix makes one")
    tensors = {tensor.name: tensor for tensor in header.tensors}
    values = {
        name.removesuffix(SUMS): _mean(path, header, tensors, name)
        for name in tensors
        if name.endswith(SUMS)
    }
    datasets = header.metadata["imatrix.datasets"]
    return Importance(
        values, ", ".join(map(str, datasets)), header.metadata["imatrix.chunk_count"]
    )


def _mean(
    path: Path, header: Header, tensors: dict[str, Tensor], name: str
) -> NDArray[np.float32]:
    import numpy as np

    counts_name = name.removesuffix(SUMS) + COUNTS
    if counts_name not in tensors:
        raise BrokenModel(path, f"has sums but no counts for {name}")
    sums = _values(path, header, tensors[name])
    counts = _values(path, header, tensors[counts_name])
    per_expert = sums.reshape(counts.size, -1)
    # An expert that the text never activated has no data: its columns count equally.
    mean = np.where(
        counts[:, None] > 0, per_expert / np.maximum(counts[:, None], 1), 1.0
    )
    return np.ascontiguousarray(mean, dtype=np.float32).ravel()


def _values(path: Path, header: Header, tensor: Tensor) -> NDArray[np.float32]:
    import numpy as np

    start = header.data_offset + tensor.offset
    return np.fromfile(path, np.float32, tensor.elements, offset=start)
