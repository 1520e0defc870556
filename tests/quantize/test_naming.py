from pathlib import Path

import pytest

from edgeserve.models.naming import stem, variant_path
from edgeserve.runtime.files import part_path


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct"),
        ("qwen2.5-1.5b-instruct-q4_k_m.gguf", "qwen2.5-1.5b-instruct"),
        ("Llama-3-8B-F16-00001-of-00003.gguf", "Llama-3-8B"),
        ("plain.gguf", "plain"),
        ("f16.gguf", "f16"),
        ("x-IQ3_XXS.gguf", "x"),
    ],
)
def test_the_type_is_taken_off_a_name(name: str, model: str) -> None:
    assert stem(Path(name)) == model


def test_a_variant_is_named_after_model_and_type() -> None:
    target = variant_path(Path("out"), Path("in/x.F16.gguf"), "Q4_K_M")

    assert target == Path("out/x.Q4_K_M.gguf")
    assert part_path(target) == Path("out/x.Q4_K_M.gguf.part")
