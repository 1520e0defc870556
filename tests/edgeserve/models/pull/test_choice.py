import pytest

from edgeserve.models.pull.choice import (
    Choice,
    NoSuchVariant,
    RemoteFile,
    choose,
    choose_file,
)


def files(*names: str) -> list[RemoteFile]:
    return [RemoteFile(name=name, size=1) for name in names]


def taken(chosen: Choice) -> list[str]:
    return [each.name for each in chosen.files]


@pytest.mark.parametrize(
    ("labels", "quant", "label"),
    [
        ("Q4_K_M Q8_0 F16", "", "Q4_K_M"),
        ("Q8_0 F16", "", "Q8_0"),
        ("Q5_K_M Q6_K F16 Q3_K_M", "", "Q5_K_M"),
        ("Q2_K Q3_K_M", "", "Q3_K_M"),
        ("UD-Q4_K_XL Q4_0", "", "UD-Q4_K_XL"),
        ("Q4_K_M Q8_0", "q8_0", "Q8_0"),
        ("Q4_K_M Q8_0", "q4_k", "Q4_K_M"),
        ("UD-IQ2_M Q8_0", "IQ2_M", "UD-IQ2_M"),
        ("UD-Q4_K_XL Q4_K_M", "ud-q4_k_xl", "UD-Q4_K_XL"),
        ("FP16 Q4_0", "f16", "F16"),
        ("Q4_K_M Q8_0", "m.q8_0.gguf", "Q8_0"),
    ],
)
def test_the_usual_quantization_is_taken_or_the_one_that_is_named(
    labels: str, quant: str, label: str
) -> None:
    there = [f"m.{each}.gguf" for each in labels.split()]

    assert choose("a/b", files("README.md", *there), quant).label == label


def test_what_there_is_beside_is_told() -> None:
    chosen = choose("a/b", files("m-Q4_K_M.gguf", "m-Q8_0.gguf", "m-F16.gguf"))

    assert chosen.others == ("F16", "Q8_0")


def test_a_split_model_comes_whole_with_its_projector() -> None:
    parts = [f"Q8_0/m-Q8_0-0000{n}-of-00002.gguf" for n in (1, 2)]
    there = files("m-Q4_0.gguf", "mmproj-F16.gguf", "mmproj-BF16.gguf", *parts)

    assert taken(choose("a/b", there, "Q8_0")) == [*parts, "mmproj-F16.gguf"]


def test_one_file_is_taken_by_its_name() -> None:
    there = files("x/m.gguf", "n.gguf")

    assert taken(choose_file("a/b", there, "x/m.gguf")) == ["x/m.gguf"]


@pytest.mark.parametrize(
    ("names", "quant", "why"),
    [
        (("m-Q4_0.gguf", "m-Q8_0.gguf"), "Q6_K", "no Q6_K; it has Q4_0, Q8_0"),
        (("a-Q4_0.gguf", "b-Q4_0.gguf"), "", "several models: a-Q4_0.gguf, b-Q4_0"),
        (("a.gguf", "b.gguf"), "", "several models.*hf://o/r/a.gguf"),
        (("model.safetensors",), "", "have to be converted"),
        (("README.md",), "", "only GGUF"),
        (("imatrix.gguf", "mmproj-F16.gguf"), "", "no GGUF"),
        (("m-00001-of-00003.gguf",), "", "1 of the 3 parts"),
    ],
)
def test_what_cannot_be_chosen_is_said(
    names: tuple[str, ...], quant: str, why: str
) -> None:
    with pytest.raises(NoSuchVariant, match=why):
        choose("o/r", files(*names), quant)
