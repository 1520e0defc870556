import gguf
import pytest

from edgeserve.quantization import TYPES, USUAL, UnknownType, parse

NOT_OFFERED = {"GUESSED", "NVFP4", "Q1_0", "MXFP4_MOE"}


def test_file_type_numbers_are_llama_cpps() -> None:
    theirs = {
        each.name.removeprefix("MOSTLY_").removeprefix("ALL_"): each.value
        for each in gguf.LlamaFileType
    }

    assert {name: theirs[name] for name in set(theirs) - NOT_OFFERED} == {
        name: kind.ftype for name, kind in TYPES.items() if name not in NOT_OFFERED
    }


def test_types_are_read_in_any_case_each_once_and_in_order() -> None:
    named = [kind.name for kind in parse("q8_0, Q4_K_M,q4_k,Q8_0")]

    assert named == ["Q8_0", "Q4_K_M"]


def test_an_unknown_type_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UnknownType, match=r"'Q9_X'.*Q4_K_M"):
        parse("Q8_0,Q9_X")


def test_the_usual_types_exist_and_need_no_importance_matrix() -> None:
    assert not any(kind.needs_imatrix for kind in parse(USUAL))


def test_more_bits_lose_less_among_k_quants_of_one_size() -> None:
    ladder = [TYPES[name] for name in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M")]
    losses = [kind.divergence or 0.0 for kind in ladder]

    assert losses == sorted(losses)
    assert [kind.bits for kind in ladder] == sorted(
        (kind.bits for kind in ladder), reverse=True
    )
