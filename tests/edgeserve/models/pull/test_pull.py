from pathlib import Path

import pytest

from node.models.library import scan
from tests.edgeserve.models.pull.repository import FILE, MODEL, OTHER, REPO, unfinished
from tests.fakes.gguf import a_model
from tests.fakes.hub import Hub
from tests.fakes.terminal import Terminal


@pytest.mark.parametrize("source", [REPO, f"hf.co/{REPO}:q4_k_m", f"hf://{REPO}"])
@pytest.mark.usefixtures("hub")
def test_a_model_of_the_hub_arrives(
    source: str, models: Path, edgeserve: Terminal
) -> None:
    seen = edgeserve("pull", source)

    target = models / REPO / FILE
    assert seen.out == f"{target}\n"
    assert target.read_bytes() == MODEL
    assert unfinished(models) == []
    assert ("there is also Q8_0" in seen.err) == ("q4_k_m" not in source)


def test_a_file_is_pulled_by_its_name_and_not_twice(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    for _ in range(2):
        seen = edgeserve("pull", f"hf://{REPO}/tiny-Q8_0.gguf")
        assert seen.out == f"{models / REPO / 'tiny-Q8_0.gguf'}\n"

    assert len(hub.downloads()) == 1


@pytest.mark.usefixtures("hub")
def test_a_damaged_copy_is_replaced(models: Path, edgeserve: Terminal) -> None:
    target = models / REPO / FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(MODEL[:-1] + b"!")

    edgeserve("pull", REPO)

    assert target.read_bytes() == MODEL


def test_a_split_model_is_served_with_its_projector(
    hub: Hub, models: Path, edgeserve: Terminal, tmp_path: Path
) -> None:
    model = a_model(tmp_path / "model.gguf").read_bytes()
    parts = {f"Q8_0/m-Q8_0-0000{n}-of-00002.gguf": model for n in (1, 2)}
    hub.repos["org/m"] = {**parts, "mmproj-F16.gguf": OTHER, "m-Q4_K_M.gguf": MODEL}

    seen = edgeserve("pull", "org/m:Q8_0")

    folder = models / "org/m/Q8_0"
    assert seen.out == f"{folder}/m-Q8_0-00001-of-00002.gguf\n"
    assert sorted(each.name for each in folder.iterdir()) == [
        *("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf"),
        "mmproj-F16.gguf",
    ]
    (found,) = scan(models).models
    assert found.projector == folder / "mmproj-F16.gguf"


def test_one_file_name_in_two_repositories_is_two_files(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.repos["other/tiny"] = {FILE: OTHER}
    edgeserve("pull", REPO)

    seen = edgeserve("pull", "other/tiny")

    assert (models / REPO / FILE).read_bytes() == MODEL
    assert (models / "other/tiny" / FILE).read_bytes() == OTHER
    assert "has the same file name" in seen.err


@pytest.mark.usefixtures("slept")
def test_a_file_of_the_web_arrives_in_a_folder_of_its_address(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.cut_after, hub.cuts = 100_000, 2

    seen = edgeserve("pull", f"{hub.url}/cdn/{REPO}/{FILE}")

    host = hub.url.removeprefix("http://").replace(":", "-")
    assert seen.out == f"{models}/{host}/cdn/{REPO}/{FILE}\n"
    assert Path(seen.out.strip()).read_bytes() == MODEL


def test_a_page_that_is_no_model_is_refused(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.repos[REPO]["page.gguf"] = b"<!doctype html>"

    seen = edgeserve("pull", f"{hub.url}/cdn/{REPO}/page.gguf")
    missing = edgeserve("pull", f"{hub.url}/cdn/{REPO}/none.gguf")

    assert "is no GGUF file" in seen.err
    assert "is not there (404)" in " ".join(missing.err.split())
    assert list(models.rglob("*.gguf")) == []


def test_a_local_file_is_copied_and_overwrites_no_other(
    models: Path, edgeserve: Terminal, tmp_path: Path
) -> None:
    path = a_model(tmp_path / "here.gguf")

    seen = edgeserve("pull", str(path))
    again = edgeserve("pull", str(path))
    (models / "here.gguf").write_bytes(MODEL)
    other = edgeserve("pull", str(path))

    assert seen.out == again.out == f"{models / 'here.gguf'}\n"
    assert other.status == 1
    assert "another file of that name" in other.err
    assert (models / "here.gguf").read_bytes() == MODEL
