"""Stores of other programs that are damaged, or made to reach other files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeserve.models.adopt.links import find
from edgeserve.models.adopt.stores import Store
from tests.edgeserve.damage import EVERY_WAY, damage
from tests.fakes import stores
from tests.fakes.gguf import a_model

NAME = "registry.ollama.ai/library/tiny/latest"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return a_model(tmp_path / "m.gguf")


@pytest.fixture
def ollama(tmp_path: Path) -> Store:
    root = tmp_path / "ollama"
    (root / "blobs").mkdir(parents=True)
    return Store("ollama", root)


def problem(store: Store) -> str:
    """Return the one sentence about a store without any model."""
    found = find(store, store.root.parent / "ours")
    assert found.models == ()
    (only,) = found.problems
    assert only.isprintable()
    return only


@pytest.mark.parametrize("way", [way for way in EVERY_WAY if way != "missing"])
def test_no_damage_to_a_manifest_is_more_than_a_sentence(
    way: str, ollama: Store, model: Path
) -> None:
    layer = (stores.MODEL, stores.blob_of(ollama.root, model))
    damage(stores.manifest(ollama.root, NAME, layer), way)

    assert "tiny" in problem(ollama) if way != "a directory" else True


@pytest.mark.parametrize("way", EVERY_WAY)
def test_no_damage_to_a_blob_is_more_than_a_sentence(
    way: str, ollama: Store, model: Path
) -> None:
    digest = stores.blob_of(ollama.root, model)
    stores.manifest(ollama.root, NAME, (stores.MODEL, digest))
    damage(ollama.root / "blobs" / digest.replace(":", "-"), way)

    assert digest[7:] in problem(ollama)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:../../../secret",
        "../../secret.gguf",
        "sha256:" + "g" * 64,
        "sha256:ab",
    ],
)
def test_a_digest_that_is_none_reads_nothing(
    digest: str, ollama: Store, model: Path
) -> None:
    model.rename(ollama.root.parent / "secret.gguf")
    stores.manifest(ollama.root, NAME, (stores.MODEL, digest))

    assert "impossible digest" in problem(ollama)


def test_a_blob_that_leads_out_of_the_store_is_not_linked(
    ollama: Store, model: Path
) -> None:
    digest = stores.blob_of(ollama.root, model)
    blob = ollama.root / "blobs" / digest.replace(":", "-")
    blob.unlink()
    blob.symlink_to(model)
    stores.manifest(ollama.root, NAME, (stores.MODEL, digest))

    assert f"leads out of {ollama.root / 'blobs'}" in problem(ollama)


def test_a_folder_of_blobs_that_leads_out_of_the_store_is_not_read(
    ollama: Store, model: Path, tmp_path: Path
) -> None:
    stores.manifest(
        ollama.root, NAME, (stores.MODEL, stores.blob_of(tmp_path / "x", model))
    )
    (ollama.root / "blobs").rmdir()
    (ollama.root / "blobs").symlink_to(tmp_path / "x" / "blobs")

    assert "leads out of" in problem(ollama)


def test_links_of_a_folder_that_lead_out_or_in_circles_are_not_followed(
    tmp_path: Path, model: Path
) -> None:
    root = tmp_path / "folder"
    (root / "sub").mkdir(parents=True)
    (root / "out.gguf").symlink_to(model)
    (root / "loop.gguf").symlink_to("loop.gguf")
    (root / "sub" / "up").symlink_to(root)

    found = find(Store("folder", root), tmp_path / "ours")

    assert found.models == ()
    assert len(found.problems) == 3
    assert any("leads out of" in each for each in found.problems)


def test_a_repository_named_to_climb_out_makes_no_link(
    tmp_path: Path, model: Path
) -> None:
    stores.hub_cache(tmp_path / "hub", "../..", "R-F16.gguf", model)

    assert "impossible name" in problem(Store("huggingface", tmp_path / "hub"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_a_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "ollama"
    closed.mkdir(mode=0)
    try:
        assert "Permission denied" in problem(Store("ollama", closed))
    finally:
        closed.chmod(0o700)


@pytest.mark.parametrize("kind", ["ollama", "huggingface", "lmstudio", "folder"])
def test_an_unreadable_folder_is_a_sentence(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: object = ".") -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", closed)
    monkeypatch.setattr(os, "scandir", closed)

    store = Store(kind, tmp_path)  # type: ignore[arg-type] # of the parameters above

    assert "Permission denied" in problem(store)
