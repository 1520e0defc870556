import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeserve.models.header import BrokenModel, LongList, read_header
from tests.fakes.gguf import a_model


def test_it_says_what_ggufs_own_reader_says(tmp_path: Path) -> None:
    path = a_model(tmp_path / "m.gguf")

    header = read_header(path)

    theirs = gguf.GGUFReader(path)
    assert [
        (tensor.name, tensor.kind, tensor.shape, tensor.bytes)
        for tensor in header.tensors
    ] == [
        (each.name, each.tensor_type.name, tuple(each.shape), each.n_bytes)
        for each in theirs.tensors
    ]
    assert header.data_offset == theirs.data_offset
    for key, value in header.metadata.items():
        field = theirs.get_field(key)
        assert field is not None
        assert value == field.contents()


def test_a_long_list_is_counted_rather_than_read(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"t{n}".encode() for n in range(5000)])
    writer.add_token_scores([0.0] * 5000)
    writer.add_name("after the lists")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    metadata = read_header(path).metadata

    assert metadata["tokenizer.ggml.tokens"] == LongList(5000)
    assert metadata["tokenizer.ggml.scores"] == LongList(5000)
    assert metadata["general.name"] == "after the lists"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not a GGUF"),
        (b"short", "not a GGUF"),
        (b"PK\x03\x04" + bytes(100), "does not begin"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 0x1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 0x3000000"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 5), "inside its header"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**60), "inside its header"),
    ],
)
def test_a_foreign_file_is_refused_in_a_sentence(
    tmp_path: Path, content: bytes, why: str
) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)

    with pytest.raises(BrokenModel, match=why):
        read_header(path)


def test_a_file_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BrokenModel, match="No such file"):
        read_header(tmp_path / "absent.gguf")


@settings(max_examples=60, suppress_health_check=[*HealthCheck])
@given(share=st.floats(0, 0.999))
def test_a_model_cut_anywhere_is_refused_and_nothing_else_happens(
    tmp_path: Path, share: float
) -> None:
    whole = tmp_path / "whole.gguf"
    if not whole.exists():
        a_model(whole)
    content = whole.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(BrokenModel):
        read_header(cut)
