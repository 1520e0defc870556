from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeserve.models.header import BrokenModel
from quantize.worker.imatrix_file import read_importance
from tests.fakes.gguf import a_model, an_imatrix


def test_sums_are_divided_by_counts_expert_by_expert(tmp_path: Path) -> None:
    sums = np.array([[2, 4, 6], [5, 5, 5]], np.float32)
    counts = np.array([[2], [0]], np.float32)
    path = an_imatrix(tmp_path / "i.gguf", {"w": (sums, counts)})

    found = read_importance(str(path))

    # The second expert never ran: its columns count the same.
    assert found.values["w"].tolist() == [1, 2, 3, 1, 1, 1]
    assert (found.dataset, found.chunks) == ("text.txt", 7)


def test_a_model_is_not_an_importance_matrix(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")

    with pytest.raises(BrokenModel, match="not an importance matrix"):
        read_importance(str(path))


def test_sums_without_counts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "i.gguf"
    writer = gguf.GGUFWriter(path, "")
    writer.add_array("imatrix.datasets", ["t"])
    writer.add_uint32("imatrix.chunk_count", 1)
    writer.add_uint32("imatrix.chunk_size", 1)
    writer.add_tensor("w.in_sum2", np.ones((1, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with pytest.raises(BrokenModel, match=r"no counts for w\.in_sum2"):
        read_importance(str(path))
