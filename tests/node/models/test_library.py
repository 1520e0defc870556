import os
from pathlib import Path
from typing import Any

import gguf
import pytest

from node.models.library import Model, UnusableFile, look, scan
from tests.fakes.gguf import a_model


def a_header(path: Path, arch: str, **more: int | str) -> Path:
    """Write a GGUF with one small tensor and these keys."""
    import numpy as np

    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(1)
    for key, value in more.items():
        name = key.replace("__", ".")
        if isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def model(path: Path) -> Model:
    found = look(path)
    assert isinstance(found, Model)
    return found


def reason(path: Path) -> str:
    found = look(path)
    assert isinstance(found, UnusableFile)
    assert str(path) in found.reason
    return found.reason


def test_a_sound_model_is_known_by_name_label_and_shape(tmp_path: Path) -> None:
    found = model(a_model(tmp_path / "Tiny-Chat.F16.gguf"))

    assert found.variant == "tiny-chat:F16"
    assert found.role == "generate"
    assert found.facts.layers == 2
    assert found.facts.context == 512


def test_a_file_without_a_label_has_the_type_it_claims(tmp_path: Path) -> None:
    assert model(a_model(tmp_path / "tiny.gguf")).label == "F16"


def test_broken_files_are_answers_not_exceptions(tmp_path: Path) -> None:
    whole = a_model(tmp_path / "whole.gguf").read_bytes()
    empty, foreign, short, header = (
        tmp_path / f"{name}.gguf" for name in ("empty", "foreign", "short", "header")
    )
    empty.write_bytes(b"")
    foreign.write_bytes(b"<html>not found</html>" * 10)
    short.write_bytes(whole[: len(whole) // 2])
    header.write_bytes(whole[:60])

    assert "0 bytes" in reason(empty)
    assert "not a GGUF" in reason(foreign)
    assert "cut short" in reason(short)
    assert "header" in reason(header)


@pytest.mark.parametrize("step", range(0, 400, 7))
def test_no_damage_to_a_header_escapes_as_an_exception(
    step: int, tmp_path: Path
) -> None:
    path = a_model(tmp_path / "m.gguf")
    data = bytearray(path.read_bytes())
    data[step] ^= 0xFF
    path.write_bytes(data)

    assert isinstance(look(path), Model | UnusableFile)


def test_an_unreadable_file_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = a_model(tmp_path / "m.gguf")

    def denied(self: Path, *_: object, **__: object) -> object:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", denied)  # root may read anything

    assert "Permission denied" in reason(path)


def test_roles_follow_architecture_and_pooling(tmp_path: Path) -> None:
    bert = a_header(tmp_path / "bert.gguf", "bert")
    reranker = a_header(tmp_path / "rank.gguf", "bert", bert__pooling_type=4)
    last = a_header(tmp_path / "qwen.gguf", "qwen3", qwen3__pooling_type=3)
    plain = a_header(tmp_path / "llama.gguf", "llama")

    assert [model(each).role for each in (bert, reranker, last, plain)] == [
        "embeddings",
        "rerank",
        "embeddings",
        "generate",
    ]
    assert model(last).pooling is None
    assert model(plain).pooling == "mean"


def test_what_belongs_to_a_model_is_no_model(tmp_path: Path) -> None:
    lora = a_header(tmp_path / "l.gguf", "llama", general__type="adapter")
    clip = a_header(tmp_path / "c.gguf", "clip")

    assert "LoRA" in reason(lora)
    assert "projector" in reason(clip)


def test_a_folder_is_read_with_its_subfolders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    a_model(tmp_path / "a.Q8_0.gguf", kind=gguf.GGMLQuantizationType.Q8_0)
    a_model(tmp_path / "sub" / "see.F16.gguf")
    a_header(tmp_path / "sub" / "mmproj-see-F16.gguf", "clip")
    (tmp_path / "bad.gguf").write_bytes(b"x")
    (tmp_path / "README.md").write_text("no model")

    library = scan(tmp_path)

    assert [each.variant for each in library.models] == ["a:Q8_0", "see:F16"]
    assert library.models[1].projector == tmp_path / "sub" / "mmproj-see-F16.gguf"
    assert [each.path.name for each in library.unusable] == ["bad.gguf"]


def test_links_to_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "models", tmp_path / "disk"
    here.mkdir()
    (elsewhere / "deep").mkdir(parents=True)
    a_model(elsewhere / "far.F16.gguf")
    a_model(elsewhere / "deep" / "deep.F16.gguf")
    a_model(here / "near.F16.gguf")
    (here / "linked").symlink_to(elsewhere)
    (here / "again").symlink_to(elsewhere / "deep")
    (here / "loop").symlink_to(here)
    (elsewhere / "back").symlink_to(here)
    (here / "itself").symlink_to("itself")
    (here / "nowhere").symlink_to(tmp_path / "nothing")

    library = scan(here)

    assert sorted(each.model for each in library.models) == ["deep", "far", "near"]
    assert library.unusable == ()


def test_a_folder_is_known_by_its_own_name_and_not_by_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    a_model(tmp_path / "real" / "m.F16.gguf")
    (tmp_path / "a-link").symlink_to("real")

    (found,) = scan(tmp_path).models

    assert found.path == tmp_path / "real" / "m.F16.gguf"


def test_the_models_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    a_model(tmp_path / "disk" / "m.F16.gguf")
    (tmp_path / "models").symlink_to("disk")

    assert [each.model for each in scan(tmp_path / "models").models] == ["m"]


def test_vision_survives_shadows_of_macos_and_a_second_precision(
    tmp_path: Path,
) -> None:
    a_model(tmp_path / "see.F16.gguf")
    for kind in ("F16", "BF16"):
        a_header(tmp_path / f"mmproj-{kind}.gguf", "clip")
        (tmp_path / f"._mmproj-{kind}.gguf").write_bytes(b"\0\5\x16\7")
    (tmp_path / "._see.F16.gguf").write_bytes(b"\0\5\x16\7")

    library = scan(tmp_path)

    assert [each.projector for each in library.models] == [tmp_path / "mmproj-F16.gguf"]
    assert library.unusable == ()


def test_a_projector_that_no_model_uses_is_reported(tmp_path: Path) -> None:
    a_model(tmp_path / "one.F16.gguf")
    a_model(tmp_path / "two.F16.gguf")
    a_header(tmp_path / "mmproj-F16.gguf", "clip")

    (unused,) = scan(tmp_path).unusable

    assert "mmproj-MODEL.gguf" in unused.reason


def test_a_pipe_named_like_a_model_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "link.gguf").symlink_to("pipe.gguf")

    assert [each.reason.partition(": ")[2] for each in scan(tmp_path).unusable] == [
        "is no regular file"
    ] * 2


def test_a_name_that_is_not_utf_8_is_reported_and_can_be_encoded(
    tmp_path: Path,
) -> None:
    whole = a_model(tmp_path / "m.F16.gguf").read_bytes()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.gguf")).write_bytes(whole)

    library = scan(tmp_path)

    assert [each.model for each in library.models] == ["m"]
    assert library.unusable[0].reason.endswith(
        "caf\ufffd.gguf: its name is not UTF-8; rename it"
    )


def test_a_split_model_lacking_a_part_says_which(tmp_path: Path) -> None:
    part = a_model(tmp_path / "big-F16-00001-of-00002.gguf")

    library = scan(tmp_path)

    assert library.models == ()
    assert "00002-of-00002" in library.unusable[0].reason
    assert library.unusable[0].path == part


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert scan(tmp_path / "none").models == ()


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")

    with pytest.raises(OSError, match="Not a directory"):
        scan(file)


def test_a_link_that_leads_nowhere_does_not_stop_the_scan(tmp_path: Path) -> None:
    (tmp_path / "gone.gguf").symlink_to("nowhere")
    a_model(tmp_path / "here.gguf")

    library = scan(tmp_path)

    assert [each.model for each in library.models] == ["here"]
    assert len(library.unusable) == 1


def test_a_link_to_what_is_gone_is_a_sentence_and_hides_nothing(tmp_path: Path) -> None:
    a_model(tmp_path / "a.F16.gguf")
    (tmp_path / "Z.gguf").symlink_to(tmp_path / "away" / "Z.gguf")

    library = scan(tmp_path)

    assert [each.model for each in library.models] == ["a"]
    assert f"leads to {tmp_path / 'away' / 'Z.gguf'}" in library.unusable[0].reason


def test_a_link_to_what_may_not_be_read_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "models").mkdir()
    a_model(tmp_path / "models" / "b.F16.gguf")
    link = tmp_path / "models" / "a.F16.gguf"
    link.symlink_to(a_model(tmp_path / "secret" / "a.gguf"))
    real = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        if path in (link, str(link)) and how.get("follow_symlinks", True):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **how)

    monkeypatch.setattr(os, "stat", stat)  # root may look at anything
    library = scan(tmp_path / "models")

    assert [each.model for each in library.models] == ["b"]
    assert "Permission denied" in library.unusable[0].reason
