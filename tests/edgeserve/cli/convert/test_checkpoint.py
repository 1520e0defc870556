"""What a Hugging Face folder lacks is said before anything is computed."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeserve.cli.convert.checkpoint import NotACheckpoint, read_checkpoint
from tests.edgeserve.damage import EVERY_WAY, damage
from tests.fakes.checkpoint import a_checkpoint, weights

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


def indexed(folder: Path, shards: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": shards}))


def only(folder: Path, name: str) -> None:
    """Leave nothing but this file."""
    for path in folder.iterdir():
        path.unlink()
    (folder / name).write_text("{}")


def cut(path: Path, bytes_: int) -> None:
    path.write_bytes(path.read_bytes()[:bytes_])


FAULTS: dict[str, Callable[[Path], object]] = {
    "has no config.json": lambda at: (at / "config.json").unlink(),
    "config.json cannot be read: damaged": lambda at: cut(at / "config.json", 9),
    "holds an adapter": lambda at: only(at, "adapter_config.json"),
    "GGUF files, which need no conversion": lambda at: only(at, "m.gguf"),
    "has no weights": lambda at: (at / WEIGHTS).unlink(),
    r"only as pickles \(model.bin\)": lambda at: (at / WEIGHTS).replace(
        at / "model.bin"
    ),
    "has no tokenizer": lambda at: (at / "tokenizer.model").unlink(),
    r"lacks b.safetensors of its weights": lambda at: indexed(
        at, {"x": "b.safetensors", "y": WEIGHTS}
    ),
    "index.json cannot be read: damaged": lambda at: (at / INDEX).write_text("{}"),
    r"is cut off: 9,000 of 527,8\d\d bytes": lambda at: cut(at / WEIGHTS, 9000),
    "model.safetensors is damaged": lambda at: cut(at / WEIGHTS, 900),
    "run `git lfs pull`": lambda at: (at / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    ),
}


@pytest.mark.parametrize("said", FAULTS)
def test_what_a_folder_lacks_is_said(tmp_path: Path, said: str) -> None:
    folder = a_checkpoint(tmp_path / "tiny")
    FAULTS[said](folder)

    with pytest.raises(NotACheckpoint, match=said):
        read_checkpoint(folder)


@pytest.mark.parametrize("way", [way for way in EVERY_WAY if way != "missing"])
@pytest.mark.parametrize("name", ["config.json", INDEX, WEIGHTS])
def test_no_state_of_a_file_is_more_than_a_sentence(
    tmp_path: Path, name: str, way: str
) -> None:
    folder = a_checkpoint(tmp_path / "tiny")
    indexed(folder, {"x": WEIGHTS})
    damage(folder / name, way)

    with pytest.raises((NotACheckpoint, OSError)):
        read_checkpoint(folder)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match="is no folder"):
        read_checkpoint(tmp_path / "missing")


def test_the_heads_tell_how_long_the_model_will_be(tmp_path: Path) -> None:
    found = read_checkpoint(a_checkpoint(tmp_path / "tiny"))

    elements = sum(tensor.size for tensor in weights().values())
    assert (found.tensors, found.elements) == (len(weights()), elements)
    assert found.bytes_as("f32") - found.bytes_as("f16") == 2 * elements


def test_a_snapshot_of_the_hub_has_its_repositorys_name(tmp_path: Path) -> None:
    place = tmp_path / "models--Maker--Tiny-1B" / "snapshots" / "0123abc"

    assert read_checkpoint(a_checkpoint(place)).name == "Tiny-1B"
    assert read_checkpoint(a_checkpoint(tmp_path / "mine")).name == "mine"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_files_that_name_code_are_known(tmp_path: Path, name: str) -> None:
    folder = a_checkpoint(tmp_path / "tiny")
    assert read_checkpoint(folder).code == ()

    written = json.loads((folder / name).read_text())
    code = {"auto_map": {"AutoTokenizer": ["tokenization_x.X", None]}}
    (folder / name).write_text(json.dumps({**written, **code}))

    assert read_checkpoint(folder).code == (name,)
