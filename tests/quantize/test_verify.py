from dataclasses import replace
from pathlib import Path

import pytest

from edgeserve.models.facts import read
from edgeserve.quantization import TYPES
from quantize.make import NotAsPlanned, verify
from quantize.plan.variants import Variant, variant
from tests.fakes.gguf import Kind, a_model


def as_planned(path: Path, **changes: str) -> Variant:
    """Plan exactly what the file is, but for some tensors."""
    facts = read(path)
    kinds = {tensor.name: tensor.kind for tensor in facts.tensors}
    return variant(facts, TYPES[facts.file_type], {**kinds, **changes}, {})


def test_a_file_as_planned_passes(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf", kind=Kind.Q8_0)

    verify(path, as_planned(path), with_imatrix=False)


def test_another_tensor_type_than_planned_is_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf", kind=Kind.Q8_0)
    planned = as_planned(path, **{"token_embd.weight": "Q6_K"})

    with pytest.raises(
        NotAsPlanned, match=r"token_embd\.weight is Q8_0, planned was Q6_K"
    ):
        verify(path, planned, with_imatrix=False)


def test_a_missing_tensor_is_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")
    planned = as_planned(path)
    fewer = {name: kind for name, kind in planned.kinds.items() if "norm" not in name}

    with pytest.raises(NotAsPlanned, match="has 20 tensors, not 15"):
        verify(path, replace(planned, kinds=fewer), with_imatrix=False)


def test_a_file_type_other_than_planned_is_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf", kind=Kind.F16)
    other = a_model(tmp_path / "o.gguf", kind=Kind.Q8_0)

    with pytest.raises(NotAsPlanned, match="file_type is 1, planned was 7"):
        verify(path, as_planned(other), with_imatrix=False)


def test_bytes_too_many_are_found(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")
    planned = as_planned(path)
    with path.open("ab") as file:
        file.write(bytes(500))

    with pytest.raises(NotAsPlanned, match="bytes more"):
        verify(path, planned, with_imatrix=False)


def test_a_variant_made_with_an_importance_matrix_says_so(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")

    with pytest.raises(NotAsPlanned, match="importance matrix"):
        verify(path, as_planned(path), with_imatrix=True)
