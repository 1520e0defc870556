"""What is assumed of llama.cpp without the library is what llama.cpp does."""

from pathlib import Path

import pytest

from edgeserve.models.facts import ModelFacts, read
from edgeserve.quantization import TYPES, USUAL
from quantize.overrides import dry_run
from quantize.plan.assumed import assumed
from quantize.plan.variants import Variant
from tests.fakes.gguf import Shape, a_model
from tests.quantize.needs import library

SHAPES = {
    "plain": Shape(embedding=512, heads=8, kv_heads=8, layers=9, vocabulary=512),
    "shared heads": Shape(embedding=512, heads=8, kv_heads=2, layers=16),
    "own output": Shape(embedding=512, heads=8, kv_heads=2, layers=8, tied=False),
    "odd rows": Shape(embedding=96, feed_forward=288, heads=3, kv_heads=1, layers=4),
}


def facts_of(folder: Path, shape: Shape) -> ModelFacts:
    return read(a_model(folder / "m.gguf", shape))


def of(planned: Variant, part: str) -> list[str]:
    return [kind for name, kind in planned.kinds.items() if part in name]


def test_every_tensor_gets_a_type_that_can_hold_its_rows(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, SHAPES["odd rows"])

    for kind in TYPES.values():
        planned = assumed(facts, kind)

        assert set(planned.kinds) == {tensor.name for tensor in facts.tensors}
        assert planned.weight_bytes > 0


def test_the_usual_types_are_smaller_one_after_the_other(tmp_path: Path) -> None:
    facts = facts_of(tmp_path, SHAPES["plain"])

    sizes = [assumed(facts, TYPES[name]).weight_bytes for name in USUAL]

    assert sizes == sorted(sizes, reverse=True)


def test_q4_k_m_gives_the_first_the_last_and_every_third_layer_more(
    tmp_path: Path,
) -> None:
    planned = assumed(facts_of(tmp_path, SHAPES["plain"]), TYPES["Q4_K_M"])

    more = [kind == "Q6_K" for kind in of(planned, "ffn_down")]
    assert more == [True, False, False, True, False, False, True, True, True]
    assert set(of(planned, "attn_q")) == {"Q4_K"}
    assert set(of(planned, "_norm")) == {"F32"}


@library
@pytest.mark.parametrize("shape", SHAPES)
def test_llama_cpp_does_what_is_assumed(shape: str, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, SHAPES[shape])

    wrong = {
        kind.name: {
            name: (became, guess.kinds[name])
            for name, became in true.kinds.items()
            if guess.kinds[name] != became
        }
        for kind in TYPES.values()
        for true, guess in [(dry_run(facts, kind), assumed(facts, kind))]
        if true.kinds != guess.kinds
    }

    assert wrong == {}
