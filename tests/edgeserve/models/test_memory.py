from pathlib import Path

import pytest

from edgeserve.models.facts import read
from edgeserve.models.memory import GIB, MIB, kv_bytes, layered, need, parse_size, size
from tests.fakes.gguf import Shape, a_model

SMOLLM2 = Shape(
    layers=30, embedding=576, feed_forward=1536, heads=9, kv_heads=3,
    vocabulary=49152, context=8192,
)  # fmt: skip


def test_keys_and_values_take_what_llama_cpp_allocates(tmp_path: Path) -> None:
    facts = read(a_model(tmp_path / "m.gguf", SMOLLM2))

    assert kv_bytes(facts, 8192) == 180 * MIB  # as llama-fit-params says
    assert kv_bytes(facts, 8192, "q8_0") == int(95.625 * MIB)


@pytest.mark.parametrize(("ubatch", "said"), [(512, 98), (64, 12)])
def test_the_compute_estimate_covers_what_llama_fit_params_said(
    tmp_path: Path, ubatch: int, said: int
) -> None:
    facts = read(a_model(tmp_path / "m.gguf", SMOLLM2))

    asked = need(facts, slots=1, context=8192, ubatch=ubatch).compute

    assert said * MIB <= asked <= 1.2 * said * MIB


def test_the_arithmetic_adds_up_and_names_its_parts(tmp_path: Path) -> None:
    facts = read(a_model(tmp_path / "m.gguf"))

    total = need(facts, slots=4, context=512, weights=GIB)

    assert total.total == total.weights + total.kv + total.compute + total.process
    words = total.arithmetic()
    assert words.startswith(size(total.total))
    assert "weights 1 GiB" in words
    assert "4 x 512 tokens" in words


def test_layers_and_the_rest_are_the_whole_model(tmp_path: Path) -> None:
    facts = read(a_model(tmp_path / "m.gguf"))
    found = layered(facts)

    assert found is not None
    assert found.layers == facts.layers
    whole = found.layers * found.layer_bytes + found.rest_bytes
    assert facts.weight_bytes - found.layers < whole <= facts.weight_bytes
    assert found.kv_bytes == kv_bytes(facts, 1)
    assert found.hidden_bytes == 4 * facts.embedding


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("4GiB", 4 * GIB),
        ("4g", 4 * GIB),
        ("1.5 GB", 3 * GIB // 2),
        ("900MiB", 900 * MIB),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "much", "4 apples", "GiB", "1.2.3G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a size"):
        parse_size(text)


def test_sizes_are_written_short() -> None:
    assert [size(n) for n in (5, 2048, 1007 * MIB, 4.58 * GIB)] == [
        "5 B", "2 KiB", "1,007 MiB", "4.58 GiB",
    ]  # fmt: skip
