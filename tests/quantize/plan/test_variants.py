from collections.abc import Callable
from pathlib import Path

from edgeserve.models.facts import ModelFacts, read
from edgeserve.models.memory import MIB, Need, need
from edgeserve.quantization import TYPES
from quantize.plan.machines import Machine
from quantize.plan.variants import Variant, best_fit, judge, variant
from tests.fakes.gguf import Shape, a_model


def facts_of(folder: Path) -> ModelFacts:
    return read(a_model(folder / "m.gguf", Shape(embedding=512, vocabulary=4096)))


def all_as(facts: ModelFacts, name: str, **misfits: str) -> Variant:
    """Plan a variant whose matrices all become the type's base."""
    base = TYPES[name].base
    kinds = {
        tensor.name: base if len(tensor.shape) > 1 else "F32"
        for tensor in facts.tensors
    }
    return variant(facts, TYPES[name], kinds, misfits)


def serving(
    facts: ModelFacts, slots: int = 1, context: int = 512
) -> Callable[[int], Need]:
    return lambda size: need(facts, slots=slots, context=context, weights=size)


def test_the_size_is_counted_tensor_by_tensor(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)

    planned = all_as(facts, "F16")

    assert planned.weight_bytes == facts.weight_bytes
    assert planned.file_bytes == facts.file_bytes
    assert all_as(facts, "Q8_0").bits < 8.6


def test_the_largest_loss_free_variant_that_fits_is_best(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    variants = [all_as(facts, name) for name in ("Q4_K_M", "Q8_0", "F16")]
    needed = serving(facts)
    roomy, tight, tiny = (
        Machine("roomy", 900 * MIB), Machine("tight", 0), Machine("tiny", 1),
    )  # fmt: skip
    needs = [each.need.total for each in judge(variants, (), needed)]
    tight = Machine("tight", needs[1])

    verdicts = judge(variants, (roomy, tight, tiny), needed)

    assert best_fit(verdicts, "roomy") is variants[2]
    assert best_fit(verdicts, "tight") is variants[1]
    assert best_fit(verdicts, "tiny") is None


def test_more_slots_and_context_need_more_memory(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)
    variants = [all_as(facts, "Q8_0")]

    small = judge(variants, (), serving(facts))
    large = judge(variants, (), serving(facts, slots=4, context=2048))

    assert large[0].need.kv == 16 * small[0].need.kv


def test_what_did_not_fit_is_shown_with_what_it_became(tmp_path: Path) -> None:
    facts = facts_of(tmp_path)

    plain = all_as(facts, "Q4_K_M")
    odd = variant(
        facts,
        TYPES["Q4_K_M"],
        {**plain.kinds, "blk.0.attn_q.weight": "Q5_0"},
        {"blk.0.attn_q.weight": "Q4_K"},
    )

    assert plain.remark == ""
    assert "1 of 20 tensors" in odd.remark
    assert "Q4_K" in odd.remark
    assert "1 Q5_0" in odd.remark
