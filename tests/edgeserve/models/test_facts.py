from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeserve.models.facts import read
from edgeserve.models.header import BrokenModel
from tests.fakes.gguf import Kind, Shape, a_model


def test_a_models_shape_is_read_whole(tmp_path: Path) -> None:
    shape = Shape(layers=3, embedding=512, heads=8, kv_heads=2, context=2048)
    path = a_model(tmp_path / "m.gguf", shape, kind=Kind.Q8_0)

    facts = read(path)

    assert facts.architecture == "llama"
    assert facts.name == "Synthetic"
    assert facts.file_type == "Q8_0"
    assert facts.context == 2048
    assert facts.kv_heads == (2, 2, 2)
    assert (facts.key_length, facts.value_length) == (64, 64)
    assert facts.vocabulary == 512
    assert facts.file_bytes == path.stat().st_size
    assert facts.quantized_kinds == ("Q8_0",)
    assert list(facts.kinds) == ["Q8_0", "F32"]


def test_kv_heads_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(3)
    writer.add_head_count([8, 4, 4])
    writer.add_head_count_kv([4, 2, 0])
    writer.add_embedding_length(256)
    writer.add_tensor("w", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    facts = read(path)

    assert facts.kv_heads == (4, 2, 0)
    assert facts.key_length == 32


@pytest.mark.parametrize("suffix", [".gguf", ".GGUF"])
def test_a_split_model_is_read_from_all_its_files(tmp_path: Path, suffix: str) -> None:
    stem = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(stem, "llama", split_max_tensors=2)
    writer.add_block_count(1)
    for n in range(3):
        writer.add_tensor(f"w{n}", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = sorted(tmp_path.glob("m-*.gguf"))
    first, second = (part.rename(part.with_suffix(suffix)) for part in parts)

    facts = read(first)

    assert facts.files == (first, second)
    assert [tensor.name for tensor in facts.tensors] == ["w0", "w1", "w2"]
    second.unlink()
    with pytest.raises(BrokenModel, match="00002-of-00002"):
        read(first)


def test_a_file_without_an_architecture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + bytes(16))

    with pytest.raises(BrokenModel, match="architecture"):
        read(path)
