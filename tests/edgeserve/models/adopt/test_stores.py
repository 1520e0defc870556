from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from edgeserve.errors import SettingsError
from edgeserve.models.adopt.links import find
from edgeserve.models.adopt.stores import Found, recognised, usual
from tests.fakes import stores
from tests.fakes.gguf import a_model
from tests.node.models.test_library import a_header


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "m.gguf")


def found_in(path: Path) -> Found:
    return find(recognised(path), path.parent / "no models folder")


def variants(found: Found) -> list[str]:
    return [each.variant for each in found.models]


def test_each_program_is_found_where_it_usually_keeps_models(
    tmp_path: Path, model: Path
) -> None:
    stores.lm_studio(tmp_path, model)
    stores.ollama(tmp_path, model, "llama3.2:1b")
    stores.hub_cache(tmp_path / ".cache/huggingface/hub", "o/r", "R-F16.gguf", model)

    there = usual({}, tmp_path)

    assert [each.kind for each in there] == ["lmstudio", "ollama", "huggingface"]
    assert [recognised(each.root) for each in there] == there
    assert [variants(find(each, tmp_path / "ours")) for each in there] == [
        ["tiny-chat:Q8_0"],
        ["llama3.2-1b:F16"],
        ["r:F16"],
    ]


def test_variables_of_the_programs_name_their_folders(
    tmp_path: Path, model: Path
) -> None:
    stores.ollama(tmp_path / "a", model, "x:1b")
    stores.hub_cache(tmp_path / "b/hub", "o/r", "R-F16.gguf", model)
    environ = {
        "OLLAMA_MODELS": str(tmp_path / "a/.ollama/models"),
        "HF_HOME": str(tmp_path / "b"),
    }

    there = usual(environ, tmp_path)
    named = usual({**environ, "HF_HUB_CACHE": str(tmp_path)}, tmp_path / "nobody")

    assert [each.kind for each in there] == ["ollama", "huggingface"]
    assert named[1].root == tmp_path


def test_the_folder_above_is_understood_and_a_plain_one_is_a_folder(
    tmp_path: Path, model: Path
) -> None:
    stores.ollama(tmp_path, model, "x:1b")
    stores.lm_studio(tmp_path, model)
    (tmp_path / "plain").mkdir()

    kinds = [
        recognised(tmp_path / name).kind for name in (".ollama", ".lmstudio", "plain")
    ]

    assert kinds == ["ollama", "lmstudio", "folder"]


@pytest.mark.parametrize("what", ["missing", "file", "loop"])
def test_what_is_no_folder_is_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    path = tmp_path / what
    if what == "file":
        path.touch()
    if what == "loop":
        path.symlink_to(path)

    with pytest.raises(SettingsError, match=str(path)):
        recognised(path)


def test_names_of_ollama_become_names_of_models_and_variants(
    tmp_path: Path, model: Path
) -> None:
    store = tmp_path / ".ollama/models"
    for number, name in enumerate(
        (
            "registry.ollama.ai/library/llama3.2/1b-instruct-q4_K_M",
            "registry.ollama.ai/library/qwen3/latest",
            "registry.ollama.ai/me/mine/8b",
            "hf.co/bartowski/Qwen3-4B-GGUF/Q6_K",
        )
    ):
        digest = stores.blob_of(store, model.read_bytes() + bytes([number]))
        stores.manifest(store, name, (stores.MODEL, digest))

    found = found_in(store)

    assert {each.name: each.variant for each in found.models} == {
        "llama3.2:1b-instruct-q4_K_M": "llama3.2-1b-instruct:Q4_K_M",
        "qwen3:latest": "qwen3:F16",
        "me/mine:8b": "mine-8b:F16",
        "hf.co/bartowski/Qwen3-4B-GGUF:Q6_K": "qwen3-4b:Q6_K",
    }
    assert found.problems == ()


def test_of_several_names_of_one_file_the_longest_is_taken(
    tmp_path: Path, model: Path
) -> None:
    blob = stores.ollama(tmp_path, model, "qwen3:latest", "qwen3:4b", "qwen3:4b-q4_K_M")

    (only,) = found_in(tmp_path / ".ollama").models

    assert only.name == "qwen3:4b-q4_K_M"
    assert only.links[-1].target == blob


def test_a_projector_of_ollama_lies_beside_its_model(
    tmp_path: Path, model: Path
) -> None:
    store = tmp_path / ".ollama/models"
    seen = a_header(tmp_path / "clip.gguf", "clip")
    layers = (
        (stores.MODEL, stores.blob_of(store, model)),
        (stores.PROJECTOR, stores.blob_of(store, seen)),
    )
    stores.manifest(store, "registry.ollama.ai/library/llava/7b", *layers)

    (only,) = found_in(store).models

    assert [str(each.path) for each in only.links] == [
        "library/llava/mmproj-llava-7b.gguf",
        "library/llava/llava-7b.gguf",
    ]


def test_what_only_ollamas_engine_can_load_is_said(tmp_path: Path) -> None:
    store = tmp_path / ".ollama/models"
    own = a_header(tmp_path / "own.gguf", "mllama")
    adapter = a_header(tmp_path / "lora.gguf", "llama")
    for name, *layers in (
        ("vision/latest", (stores.MODEL, stores.blob_of(store, own))),
        ("tensors/latest", ("application/vnd.ollama.image.tensor", "sha256:00")),
        (
            "tuned/latest",
            (stores.MODEL, stores.blob_of(store, adapter)),
            ("application/vnd.ollama.image.adapter", "sha256:00"),
        ),
    ):
        stores.manifest(store, f"registry.ollama.ai/library/{name}", *layers)

    found = found_in(store)

    assert found.models == ()
    assert [each.partition(": ")[0] for each in found.problems] == [
        "Ollama's tensors:latest",
        "Ollama's tuned:latest",
        "Ollama's vision:latest",
    ]
    assert "'mllama'" in found.problems[2]


def test_a_file_with_tensors_for_images_is_for_ollamas_engine(tmp_path: Path) -> None:
    store = tmp_path / ".ollama/models"
    writer = gguf.GGUFWriter(tmp_path / "own.gguf", "gemma3")
    for name in ("token_embd.weight", "v.patch_embedding.weight"):
        writer.add_tensor(name, np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    layer = (stores.MODEL, stores.blob_of(store, tmp_path / "own.gguf"))
    stores.manifest(store, "registry.ollama.ai/library/gemma3/4b", layer)

    found = found_in(store)

    assert found.models == ()
    assert "images or sounds is in the same file" in found.problems[0]


def test_the_latest_commit_of_a_repository_counts_and_what_it_lacks_is_kept(
    tmp_path: Path, model: Path
) -> None:
    newer = a_model(tmp_path / "newer.gguf", name="newer")
    stores.hub_cache(tmp_path / "hub", "o/r", "R-F16.gguf", model, "old")
    stores.hub_cache(tmp_path / "hub", "o/r", "sub/R-Q8_0.gguf", model, "old")
    latest = stores.hub_cache(tmp_path / "hub", "o/r", "R-F16.gguf", newer, "new")

    found = found_in(tmp_path / "hub")

    targets = {each.variant: each.links[-1] for each in found.models}
    assert targets.keys() == {"r:F16", "r:Q8_0"}
    assert targets["r:F16"].target == latest.resolve()
    assert str(targets["r:Q8_0"].path) == "o/r/sub/R-Q8_0.gguf"


def test_parts_and_projectors_stay_together(tmp_path: Path, model: Path) -> None:
    for name in ("Big-F16-00001-of-00002.gguf", "Big-F16-00002-of-00002.gguf"):
        stores.lm_studio(tmp_path, model, name)
    seen = a_header(tmp_path / "clip.gguf", "clip")
    stores.lm_studio(tmp_path, seen, "mmproj-Big-F16.gguf")
    stores.lm_studio(tmp_path, model, "Half-F16-00001-of-00002.gguf")

    found = found_in(tmp_path / ".lmstudio")

    (only,) = found.models
    assert [each.path.name for each in only.links] == [
        "mmproj-Big-F16.gguf",
        "Big-F16-00002-of-00002.gguf",
        "Big-F16-00001-of-00002.gguf",
    ]
    assert "Half-F16-00002-of-00002.gguf: No such file" in found.problems[0]


def test_a_store_that_may_not_be_looked_at_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "ollama"
    real = os.stat

    def stat(path: Any, **how: Any) -> os.stat_result:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **how)

    monkeypatch.setattr(os, "stat", stat)  # root may look at anything

    (only,) = usual({"OLLAMA_MODELS": str(closed)}, tmp_path)

    assert only.root == closed
