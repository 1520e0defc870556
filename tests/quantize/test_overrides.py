from pathlib import Path

import pytest

from edgeserve.models.blocks import stored_as
from edgeserve.models.facts import read
from edgeserve.quantization import TYPES
from quantize.overrides import BadOverride, Override, dry_run, pairs, parse_override
from quantize.worker.child import QuantizerFailed
from tests.fakes.gguf import Shape, a_model
from tests.quantize.needs import library

TENSORS = ("blk.0.attn_v.weight", "blk.0.ffn_down.weight")


def test_a_pattern_and_a_type_in_any_case() -> None:
    found = parse_override(r"blk\.0\.attn=q8_0", TENSORS)

    assert found == Override(r"blk\.0\.attn", "Q8_0")
    assert pairs([found]) == ((found.pattern, 8),)
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
def test_a_wrong_override_is_refused(text: str, why: str) -> None:
    with pytest.raises(BadOverride, match=why):
        parse_override(text, TENSORS)


pytestmark = library


def test_rows_divisible_by_256_become_true_k_quants(tmp_path: Path) -> None:
    facts = read(a_model(tmp_path / "m.gguf", Shape(embedding=512, layers=4)))

    planned = dry_run(facts, TYPES["Q4_K_M"])

    assert planned.misfits == {}
    assert set(planned.shares) == {"Q4_K", "Q6_K", "F32"}
    assert 4.5 < planned.bits < 5.5


@pytest.mark.parametrize(
    "kind", ["Q4_K_M", "Q5_K_M", "Q6_K", "Q2_K", "IQ4_XS", "IQ3_M"]
)
def test_rows_that_do_not_divide_are_reported_as_what_they_become(
    tmp_path: Path, kind: str
) -> None:
    odd = Shape(embedding=96, feed_forward=288, heads=3, kv_heads=1)
    facts = read(a_model(tmp_path / "m.gguf", odd))
    rows = {tensor.name: tensor.row for tensor in facts.tensors}

    planned = dry_run(facts, TYPES[kind])

    assert planned.misfits
    assert {name: planned.kinds[name] for name in planned.misfits} == {
        name: stored_as(asked, rows[name]) for name, asked in planned.misfits.items()
    }


def test_a_dry_run_of_every_type_writes_nothing(tmp_path: Path) -> None:
    base = a_model(tmp_path / "m.gguf")
    facts = read(base)

    for kind in ("Q8_0", "IQ2_XXS", "TQ1_0"):
        assert dry_run(facts, TYPES[kind]).weight_bytes < facts.weight_bytes

    assert list(tmp_path.iterdir()) == [base]


def test_what_llama_cpp_cannot_read_is_a_sentence_with_its_reason(
    tmp_path: Path,
) -> None:
    whole = a_model(tmp_path / "m.gguf")
    facts = read(whole)
    whole.write_bytes(whole.read_bytes()[:40_000])

    with pytest.raises(QuantizerFailed, match=r"fail|bounds|corrupt"):
        dry_run(facts, TYPES["Q8_0"])
