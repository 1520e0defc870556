import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeserve.models.blocks import (
    BLOCKS,
    SMALLER_BLOCKS,
    canonical,
    fits,
    stored_as,
    tensor_bytes,
)


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


@pytest.mark.parametrize(
    ("asked", "row", "becomes"),
    [
        ("Q4_K", 4096, "Q4_K"),
        ("Q4_K", 576, "Q5_0"),
        ("Q6_K", 576, "Q8_0"),
        ("IQ3_S", 576, "IQ4_NL"),
        ("Q2_K", 96, "Q4_0"),
        ("Q4_K", 100, "F16"),
        ("Q8_0", 100, "F16"),
    ],
)
def test_rows_that_do_not_divide_get_a_type_that_holds_them(
    asked: str, row: int, becomes: str
) -> None:
    assert stored_as(asked, row) == becomes


@given(st.sampled_from(sorted(SMALLER_BLOCKS)), st.integers(1, 20_000))
def test_what_is_stored_always_fits_and_never_has_fewer_bits(
    kind: str, row: int
) -> None:
    becomes = stored_as(kind, row)

    assert fits(becomes, row)
    assert BLOCKS[becomes].bits >= BLOCKS[kind].bits
