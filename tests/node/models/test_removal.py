from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgeserve.errors import BadRequest
from node.models.library import scan
from node.models.removal import NoSuchModelFile, NotRemovable, removal, remove
from tests.fakes.gguf import a_model
from tests.node.models.test_library import a_header


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "m.gguf")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def put(model: Path, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, path)


def left(folder: Path) -> list[str]:
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


@pytest.mark.parametrize(
    "name", ["a", "a:F16", "a-F16.gguf", "A-F16", "o/r/a-F16.gguf"]
)
def test_a_model_goes_by_any_of_its_names_and_empty_folders_with_it(
    name: str, folder: Path, model: Path
) -> None:
    put(model, folder / "o/r/a-F16.gguf", folder / "o/b-F16.gguf")

    found = removal(folder, name)
    shown = found.shown
    gone = remove(found)

    assert gone == shown
    assert gone.variants == ("a:F16",)
    assert [each.bytes for each in gone.files] == [model.stat().st_size]
    assert left(folder) == ["o", "o/b-F16.gguf"]


def test_all_parts_go_and_the_first_goes_last(folder: Path, model: Path) -> None:
    parts = [folder / f"a-F16-0000{n}-of-00002.gguf" for n in (1, 2)]
    put(model, *parts)

    found = removal(folder, "a")
    remove(found)

    assert found.files == (parts[1], parts[0])
    assert left(folder) == []


def test_a_projector_stays_while_another_model_uses_it(
    folder: Path, model: Path
) -> None:
    put(model, folder / "see-F16.gguf", folder / "see-Q8_0.gguf")
    for precision in ("F16", "BF16"):
        a_header(folder / f"mmproj-see-{precision}.gguf", "clip")

    remove(removal(folder, "see:F16"))
    between = left(folder)
    remove(removal(folder, "see:Q8_0"))

    assert between == [
        "mmproj-see-BF16.gguf",
        "mmproj-see-F16.gguf",
        "see-Q8_0.gguf",
    ]
    assert left(folder) == []


def test_a_name_of_several_variants_leaves_a_choice_unless_all_are_meant(
    folder: Path, model: Path
) -> None:
    put(model, folder / "a-F16.gguf", folder / "a-Q8_0.gguf")

    with pytest.raises(BadRequest, match=r"a:F16, a:Q8_0; a:\* is all"):
        removal(folder, "a")

    assert len(removal(folder, "a:*").models) == 2


def test_namesakes_are_told_apart_by_their_paths(folder: Path, model: Path) -> None:
    put(model, folder / "x/a-F16.gguf", folder / "y/a-F16.gguf")

    with pytest.raises(BadRequest, match=r"x/a-F16.gguf, y/a-F16.gguf"):
        removal(folder, "a:F16")
    remove(removal(folder, "y/a-F16.gguf"))

    assert left(folder) == ["x", "x/a-F16.gguf"]


def test_of_a_link_only_the_link_goes(folder: Path, model: Path) -> None:
    (folder / "adopted").mkdir()
    (folder / "adopted/a-F16.gguf").symlink_to(model)

    gone = remove(removal(folder, "a"))

    assert left(folder) == []
    assert model.is_file()
    (file,) = gone.files
    assert (file.bytes, file.target) == (0, str(model))


def test_nothing_is_removed_through_a_link_to_another_folder(
    folder: Path, model: Path, tmp_path: Path
) -> None:
    put(model, tmp_path / "theirs/a-F16.gguf")
    (folder / "linked").symlink_to(tmp_path / "theirs")

    with pytest.raises(NotRemovable, match="is a link"):
        removal(folder, "a")


def test_what_cannot_be_served_can_be_removed(folder: Path) -> None:
    (folder / "broken.gguf").write_bytes(b"x")
    (folder / "dead.gguf").symlink_to("/nowhere/at/all")
    assert "which is gone" in scan(folder).unusable[1].reason

    for name in ("broken.gguf", "dead"):
        remove(removal(folder, name))

    assert left(folder) == []


@pytest.mark.parametrize(
    "name", ["b", "../secret.gguf", "/etc/passwd", "", "*", ":*", "."]
)
def test_other_names_mean_nothing(name: str, folder: Path, model: Path) -> None:
    put(model, folder / "a-F16.gguf", folder.parent / "secret.gguf")

    with pytest.raises(NoSuchModelFile, match="there is a:F16"):
        removal(folder, name)


def test_a_missing_folder_has_no_models(tmp_path: Path) -> None:
    with pytest.raises(NoSuchModelFile, match="there is nothing"):
        removal(tmp_path / "none", "a")


def test_a_file_that_cannot_be_removed_is_a_sentence(
    folder: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(model, folder / "a-F16.gguf")

    def denied(self: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(self))

    monkeypatch.setattr(Path, "unlink", denied)

    with pytest.raises(NotRemovable, match="Permission denied"):
        remove(removal(folder, "a"))
