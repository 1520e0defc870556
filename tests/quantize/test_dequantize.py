from pathlib import Path

import gguf
import numpy as np
import pytest

from edgeserve.models.facts import read
from edgeserve.models.header import Tensor
from edgeserve.models.naming import stem
from quantize.dequantize import NothingToDo, dequantize, dequantized_path
from tests.fakes.gguf import Kind, Shape, a_model


def nobody(_tensor: Tensor) -> None:
    """Hear of a tensor and do nothing."""


@pytest.mark.parametrize("to", ["F16", "BF16", "F32"])
def test_the_numbers_are_those_of_the_quantized_model(tmp_path: Path, to: str) -> None:
    source = a_model(tmp_path / "m.Q4_0.gguf", kind=Kind.Q4_0)
    target = tmp_path / "wide.gguf"

    dequantize(read(source), target, to, nobody)

    theirs = {each.name: each for each in gguf.GGUFReader(source).tensors}
    for tensor in gguf.GGUFReader(target).tensors:
        before = theirs[tensor.name]
        wide = gguf.quants.dequantize(before.data, before.tensor_type)
        expected = gguf.quants.quantize(wide, tensor.tensor_type)
        assert np.array_equal(tensor.data.view(np.uint8), expected.view(np.uint8))
    assert read(target).kinds.keys() == {to, "F32"}


def test_metadata_stays_and_the_origin_is_stated(tmp_path: Path) -> None:
    source = a_model(tmp_path / "m.Q8_0.gguf", kind=Kind.Q8_0)
    target = dequantized_path(tmp_path, source, "F16")

    dequantize(read(source), target, "F16", nobody)

    before, after = read(source), read(target)
    assert target.name == "m-dequantized.F16.gguf"
    assert stem(target) == "m-dequantized"
    assert after.dequantized_from == "Q8_0"
    assert after.file_type == "F16"
    changed = {"general.file_type", "edgeserve.dequantized_from"}
    assert {k: v for k, v in after.metadata.items() if k not in changed} == {
        k: v for k, v in before.metadata.items() if k not in changed
    }
    assert gguf.GGUFReader(target).get_field("tokenizer.ggml.tokens") is not None


def test_a_large_tensor_is_converted_in_slabs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = a_model(tmp_path / "m.gguf", Shape(embedding=256), kind=Kind.Q4_0)
    dequantize(read(source), tmp_path / "once.gguf", "F16", nobody)

    monkeypatch.setattr("quantize.dequantize.SLAB", 1000)
    dequantize(read(source), tmp_path / "slabs.gguf", "F16", nobody)

    once, slabs = tmp_path / "once.gguf", tmp_path / "slabs.gguf"
    assert once.read_bytes() == slabs.read_bytes()


def test_a_base_needs_no_dequantizing(tmp_path: Path) -> None:
    source = a_model(tmp_path / "m.gguf")

    with pytest.raises(NothingToDo, match="can be a base"):
        dequantize(read(source), tmp_path / "x.gguf", "F16", nobody)


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    source = a_model(tmp_path / "m.gguf", kind=Kind.Q4_0)

    def break_off(_tensor: Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dequantize(read(source), tmp_path / "x.gguf", "F16", break_off)
    assert list(tmp_path.iterdir()) == [source]
