import pytest

from quantize.overrides import BadOverride, Override, parse_override

TENSORS = ("blk.0.attn_v.weight", "blk.0.ffn_down.weight")


def test_a_pattern_and_a_type_in_any_case() -> None:
    found = parse_override(r"blk\.0\.attn=q8_0", TENSORS)

    assert found == Override(r"blk\.0\.attn", "Q8_0")
    assert found.number == 8
    assert str(found) == r"blk\.0\.attn=Q8_0"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("attn_v", "REGEX=TYPE"),
        ("=Q8_0", "REGEX=TYPE"),
        ("attn_v=Q9", "'Q9' is not a tensor type"),
        ("attn_[=Q8_0", "not a regular expression"),
        ("attn_x=Q8_0", "matches no tensor"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadOverride, match=why):
        parse_override(text, TENSORS)
