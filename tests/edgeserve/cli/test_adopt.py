from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from node.models.library import scan
from tests.fakes import stores
from tests.fakes.gguf import a_model
from tests.fakes.terminal import Terminal

ADOPT = ("models", "adopt")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("model") / "m.gguf")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("OLLAMA_MODELS", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    return tmp_path / "models"


def variants(folder: Path) -> list[str]:
    return [each.variant for each in scan(folder).models]


def test_without_a_yes_it_only_shows_what_is_there(
    edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    stores.ollama(home, model, "tiny:1b")

    piped = edgeserve(*ADOPT)
    declined = edgeserve(*ADOPT, typed="n\n")

    assert "tiny:1b" in piped.out
    assert "tiny-1b:F16" in piped.out
    assert "--yes" in piped.out
    assert (piped.status, declined.status) == (0, 0)
    assert not ours.exists()


def test_a_yes_links_every_model_and_copies_none(
    edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    file = stores.lm_studio(home, model)
    blob = stores.ollama(home, model, "tiny:1b")
    stores.hub_cache(home / ".cache/huggingface/hub", "o/r", "R-F16.gguf", model)

    seen = edgeserve(*ADOPT, typed="y\n")

    assert seen.status == 0
    assert variants(ours) == ["r:F16", "tiny-chat:Q8_0", "tiny-1b:F16"]
    links = [path for path in ours.rglob("*") if not path.is_dir()]
    assert all(each.is_symlink() for each in links)
    assert {file, blob} < {each.readlink() for each in links}


def test_given_again_it_links_what_is_new_renews_what_changed_and_drops_what_went(
    edgeserve: Terminal, home: Path, ours: Path, model: Path, tmp_path: Path
) -> None:
    blob = stores.ollama(home, model, "tiny:1b")
    file = stores.lm_studio(home, model)
    edgeserve(*ADOPT, "--yes")
    blob.unlink()
    newer = stores.ollama(home, a_model(tmp_path / "n.gguf", name="n"), "tiny:1b")
    stores.ollama(home, a_model(tmp_path / "o.gguf", name="o"), "other:1b")
    file.unlink()

    seen = edgeserve(*ADOPT, "--yes")
    again = edgeserve(*ADOPT, "--yes")

    assert seen.status == 0
    assert variants(ours) == ["other-1b:F16", "tiny-1b:F16"]
    assert scan(ours).unusable == ()
    assert newer in {each.readlink() for each in ours.rglob("*") if each.is_symlink()}
    assert "nothing is new" in again.out


def test_links_to_a_store_that_is_not_mounted_are_kept(
    edgeserve: Terminal, home: Path, ours: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    file = a_model(disk / "A-F16.gguf")
    edgeserve(*ADOPT, str(disk), "--yes")
    disk.rename(tmp_path / "away")
    home.mkdir()

    seen = edgeserve(*ADOPT, "--yes")
    (unusable,) = scan(ours).unusable

    assert seen.status == 0
    assert f"leads to {file}, which is gone" in unusable.reason
    (tmp_path / "away").rename(disk)
    assert variants(ours) == ["a:F16"]


def test_a_file_in_the_place_of_a_link_is_left_alone(
    edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    stores.ollama(home, model, "tiny:1b")
    own = ours / "adopted/ollama/library/tiny/tiny-1b.gguf"
    own.parent.mkdir(parents=True)
    own.write_text("mine")

    seen = edgeserve(*ADOPT, "--yes")

    assert own.read_text() == "mine"
    assert "is no link" in " ".join(seen.err.split())


@pytest.mark.parametrize("where", [".lmstudio/models", "other"])
def test_no_link_is_made_in_a_folder_of_another_program(
    where: str, edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    stores.lm_studio(home, model)
    (home / where).mkdir(exist_ok=True)
    (ours / "adopted").mkdir(parents=True)
    (ours / "adopted" / "lmstudio").symlink_to(home / where)
    before = sorted(home.rglob("*"))

    seen = edgeserve(*ADOPT, "--yes")

    assert sorted(home.rglob("*")) == before
    assert "is no link" in seen.err or "is a link" in seen.err


def test_what_cannot_be_linked_is_said_and_fails(
    edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    stores.lm_studio(home, model)
    ours.mkdir()
    (ours / "adopted").write_text("no folder")

    seen = edgeserve(*ADOPT, "--yes")

    assert seen.status == 1
    assert "not everything" in seen.err


def test_the_models_folder_itself_is_not_adopted(
    edgeserve: Terminal, ours: Path, model: Path
) -> None:
    ours.mkdir()
    os.link(model, ours / "mine-F16.gguf")
    above = edgeserve(*ADOPT, str(ours.parent), "--yes")
    itself = edgeserve(*ADOPT, str(ours), "--yes")

    assert not (ours / "adopted").exists()
    assert "in the models folder" in itself.err
    assert "nothing is new" in above.out


def test_a_machine_without_such_programs_gets_a_sentence(
    edgeserve: Terminal,
) -> None:
    seen = edgeserve(*ADOPT)

    assert (seen.status, seen.err) == (0, "")
    assert "have no folder here" in seen.out


def test_a_damaged_manifest_hides_no_other_model(
    edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    stores.ollama(home, model, "tiny:1b")
    bad = home / ".ollama/models/manifests/registry.ollama.ai/library/bad/1b"
    bad.parent.mkdir()
    bad.write_text(json.dumps({"layers": 7}))

    seen = edgeserve(*ADOPT, "--yes")

    assert seen.status == 0
    assert str(bad) in "".join(seen.err.split())
    assert variants(ours) == ["tiny-1b:F16"]


def test_what_is_there_under_its_name_is_not_linked_again(
    edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    ours.mkdir()
    os.link(model, ours / "Tiny-Chat-Q8_0.gguf")
    stores.lm_studio(home, model)
    stores.hub_cache(home / ".cache/huggingface/hub", "o/r", "R-F16.gguf", model)
    stores.hub_cache(home / ".cache/huggingface/hub", "p/r", "R-F16.gguf", model)

    seen = edgeserve(*ADOPT, "--yes")
    again = edgeserve(*ADOPT, "--yes")

    assert variants(ours) == ["tiny-chat:Q8_0", "r:F16"]
    assert scan(ours).unusable == ()
    assert seen.out.count("not linked") == 2
    assert again.out.count("not linked") == 2
    assert "nothing is new" in again.out


def test_a_longer_name_that_ollama_gives_a_file_later_changes_nothing(
    edgeserve: Terminal, home: Path, ours: Path, model: Path
) -> None:
    stores.ollama(home, model, "tiny:latest")
    edgeserve(*ADOPT, "--yes")
    stores.ollama(home, model, "tiny:1b-q8_0")

    seen = edgeserve(*ADOPT, "--yes")

    assert "nothing is new" in seen.out
    assert variants(ours) == ["tiny:F16"]
