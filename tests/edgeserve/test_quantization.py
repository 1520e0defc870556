import pytest

from edgeserve.errors import BadRequest
from edgeserve.quantization import (
    FLOOR_HEADER,
    LOSS,
    at_least,
    floor_asked,
    loss,
    serves,
)


@pytest.mark.parametrize(
    ("label", "same_as"),
    [
        ("q4_k_m", "Q4_K_M"),
        ("Q4_K", "Q4_K_M"),
        ("UD-Q4_K_XL", "Q4_K_M"),
        ("Q6_K_L", "Q6_K"),
        ("FP16", "F16"),
    ],
)
def test_spellings_and_makers_own_recipes_are_known(label: str, same_as: str) -> None:
    assert loss(label) == LOSS[same_as]


@pytest.mark.parametrize(
    ("label", "floor", "good"),
    [
        ("Q8_0", "Q4_K_M", True),
        ("Q4_K_M", "Q4_K_M", True),
        ("Q4_0", "Q4_K_M", False),
        ("BF16", "F16", True),
        ("MXFP4_MOE", "Q2_K", False),
        ("Q8_0", "no such type", False),
    ],
)
def test_a_floor_lets_equals_and_betters_through(
    label: str, floor: str, good: bool
) -> None:
    assert at_least(label, floor) is good


def test_the_best_is_named_first() -> None:
    assert list(LOSS.values()) == sorted(LOSS.values())


@pytest.mark.parametrize(
    ("variant", "floor", "may"),
    [
        ("m:Q8_0", "Q4_K_M", True),
        ("m:Q4_0", "Q4_K_M", False),
        ("m:whatever", "", True),
        ("m:whatever", "Q2_K", False),
        ("m", "Q2_K", False),
    ],
)
def test_a_floor_rules_variants_out(variant: str, floor: str, may: bool) -> None:
    assert serves(variant, floor) is may


def test_a_request_says_its_floor_in_a_header() -> None:
    assert floor_asked({FLOOR_HEADER: " q4_k_m "}) == "q4_k_m"
    assert floor_asked({}) == ""
    with pytest.raises(BadRequest, match="'good'; it must be one of F32, BF16, F16"):
        floor_asked({FLOOR_HEADER: "good"})
