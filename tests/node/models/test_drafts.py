"""Which models of a folder can draft for a larger one."""

from pathlib import Path

import pytest

from node.models.drafts import drafts_for
from node.models.library import Model, scan
from tests.fakes.gguf import Kind, Shape, a_model

LARGE = Shape(layers=8)


def models(folder: Path) -> dict[str, Model]:
    return {each.variant: each for each in scan(folder).models}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    a_model(tmp_path / "large.F16.gguf", LARGE)
    a_model(tmp_path / "small.F16.gguf")
    a_model(tmp_path / "small.Q4_0.gguf", kind=Kind.Q4_0)
    return tmp_path


def drafts(folder: Path, variant: str = "large:F16") -> list[str]:
    there = models(folder)
    return list(drafts_for(there[variant], there.values()))


def test_small_models_with_the_same_tokens_can_draft_the_smallest_first(
    folder: Path,
) -> None:
    assert drafts(folder) == ["small:Q4_0", "small:F16"]


def test_a_variant_of_the_model_itself_can_draft_if_it_is_small_enough(
    folder: Path,
) -> None:
    a_model(folder / "large.Q8_0.gguf", LARGE, kind=Kind.Q8_0)
    a_model(folder / "large.Q4_0.gguf", LARGE, kind=Kind.Q4_0)

    assert drafts(folder) == ["small:Q4_0", "small:F16", "large:Q4_0"]


def test_other_tokens_cannot_draft_but_padding_does_no_harm(folder: Path) -> None:
    a_model(folder / "padded.Q4_0.gguf", Shape(vocabulary=640), kind=Kind.Q4_0)
    a_model(folder / "other.Q4_0.gguf", Shape(vocabulary=641), kind=Kind.Q4_0)

    assert "padded:Q4_0" in drafts(folder)
    assert "other:Q4_0" not in drafts(folder)


def test_a_model_that_sees_has_no_draft(folder: Path) -> None:
    (folder / "mmproj-large.gguf").write_bytes(b"GGUF" + bytes(64))

    assert drafts(folder) == []


def test_a_file_that_has_just_gone_is_no_draft(folder: Path) -> None:
    there = models(folder)
    (folder / "small.Q4_0.gguf").unlink()

    found = drafts_for(there["large:F16"], there.values())

    assert list(found) == ["small:F16"]
