import gguf
import pytest

from edgeserve.models.blocks import BLOCKS, canonical, tensor_bytes


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"Q2_0"}))
def test_blocks_are_what_gguf_says_they_are(name: str) -> None:
    kind = gguf.GGMLQuantizationType[name]

    assert (BLOCKS[name].elements, BLOCKS[name].bytes) == gguf.GGML_QUANT_SIZES[kind]
    assert BLOCKS[name].id == kind.value


def test_no_type_of_gguf_is_missing() -> None:
    assert {kind.name for kind in gguf.GGMLQuantizationType} <= set(BLOCKS)


def test_a_tensor_takes_whole_blocks() -> None:
    assert tensor_bytes("Q4_K", (512, 3)) == 2 * 144 * 3
    assert tensor_bytes("F16", (7,)) == 14


def test_ggmls_spelling_is_understood_and_nonsense_is_not() -> None:
    assert canonical("q4_K") == "Q4_K"
    assert canonical("q4_X") is None
