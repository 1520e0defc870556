"""Which models have the same tokens, told by their headers."""

from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from edgeserve.models.header import BrokenModel
from edgeserve.models.vocabulary import Vocabulary, vocabulary_of
from tests.fakes.gguf import Shape, a_model

SOME = Vocabulary(kind="gpt2", marks=(1, 2), count=500, tokens=b"abc" * 500)


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"count": 628, "tokens": SOME.tokens + b"[PAD]" * 128}, True),
        ({"count": 629, "tokens": SOME.tokens + b"[PAD]" * 129}, False),
        ({"tokens": b"abd" * 500}, False),
        ({"kind": "llama"}, False),
        ({"marks": (1, 3)}, False),
        ({"marks": (None, 2)}, False),
    ],
)
def test_tokens_have_to_be_the_same_but_for_padding(
    changes: dict[str, object], same: bool
) -> None:
    other = replace(SOME, **changes)  # type: ignore[arg-type]  # fields of it

    assert SOME.matches(other) is same
    assert other.matches(SOME) is same


@pytest.mark.parametrize("size", [512, 2000])
def test_the_tokens_are_read_as_they_are_in_the_file(tmp_path: Path, size: int) -> None:
    path = a_model(tmp_path / "m.gguf", Shape(vocabulary=size))

    found = vocabulary_of(path)

    field = gguf.GGUFReader(path).get_field("tokenizer.ggml.tokens")
    assert field is not None
    each = [str(token).encode() for token in field.contents()]
    assert found.tokens == b"".join(len(t).to_bytes(8, "little") + t for t in each)
    assert (found.kind, found.count, found.marks) == ("llama", size, (1, 2))


def test_a_mark_that_is_not_added_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([b"a", b"b"])
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    assert vocabulary_of(path).marks == (None, -1)


def test_a_model_without_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    with pytest.raises(BrokenModel, match="has no vocabulary"):
        vocabulary_of(path)
