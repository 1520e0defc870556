"""What the hub allows and refuses, and its cache."""

import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.edgeserve.models.pull.repository import FILE, MODEL, REPO
from tests.fakes.hub import COMMIT, TOKEN, Hub, a_hub
from tests.fakes.terminal import Terminal


def test_a_rate_limit_is_waited_for(
    hub: Hub, models: Path, edgeserve: Terminal, slept: list[float]
) -> None:
    hub.limited, hub.retry_after = 2, "7"

    seen = edgeserve("pull", REPO)

    assert slept == [7, 7]
    assert "waiting 7 s" in " ".join(seen.err.split())
    assert (models / REPO / FILE).exists()


def test_a_long_rate_limit_is_an_error(
    hub: Hub, edgeserve: Terminal, slept: list[float]
) -> None:
    hub.limited, hub.retry_after = 1, "86400"

    seen = edgeserve("pull", REPO)

    assert "wait 86400 s" in " ".join(seen.err.split())
    assert slept == []


@pytest.mark.usefixtures("models")
def test_a_gated_repository_says_which_token_to_set_and_opens_with_it(
    hub: Hub, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated.add(REPO)

    seen = edgeserve("pull", REPO)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    after = edgeserve("pull", REPO)

    assert seen.status == 1
    assert "is gated" in seen.err
    assert "HF_TOKEN" in seen.err
    assert after.status == 0


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("no/such", "there is no repository no/such"),
        (f"{REPO}:Q2_K", "no Q2_K; it has Q4_K_M, Q8_0"),
        (f"hf://{REPO}/none.gguf", "has no file none.gguf"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_is_not_there_is_said(source: str, why: str, edgeserve: Terminal) -> None:
    seen = edgeserve("pull", source)

    assert seen.status == 1
    assert why in seen.err


@pytest.mark.usefixtures("hub")
def test_without_a_network_it_says_so(
    edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")

    seen = edgeserve("pull", REPO)

    assert seen.status == 1
    assert "is this machine online?" in " ".join(seen.err.split())


def cache(folder: Path, content: bytes = MODEL) -> None:
    """Put the file into the cache of huggingface_hub, as that does."""
    home = folder / "models--org--tiny-GGUF"
    snapshot = home / "snapshots" / COMMIT
    for each in (home / "blobs", home / "refs", snapshot):
        each.mkdir(parents=True)
    blob = home / "blobs" / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    (snapshot / FILE).symlink_to(os.path.relpath(blob, snapshot))
    (home / "refs" / "main").write_text(COMMIT)


def test_what_the_cache_has_is_not_downloaded(
    hub: Hub, models: Path, edgeserve: Terminal, tmp_path: Path
) -> None:
    cache(tmp_path / "cache")

    edgeserve("pull", REPO)

    assert (models / REPO / FILE).read_bytes() == MODEL
    assert hub.downloads() == []


def test_offline_only_the_cache_is_read(
    hub: Hub,
    models: Path,
    edgeserve: Terminal,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    empty = edgeserve("pull", REPO)
    cache(tmp_path / "cache")
    full = edgeserve("pull", REPO)

    assert "HF_HUB_OFFLINE is set" in empty.err
    assert full.status == 0
    assert (models / REPO / FILE).read_bytes() == MODEL
    assert hub.asked == []


def test_the_token_goes_to_the_hub_only(
    hub: Hub, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.gated.add(REPO)
    with a_hub() as elsewhere:
        elsewhere.repos = hub.repos
        hub.content_url = elsewhere.url
        seen = edgeserve("pull", REPO)

    assert seen.status == 0
    assert elsewhere.tokens == [""]


def test_a_mirror_with_only_the_pointer_is_an_error(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.pointers.add(FILE)

    seen = edgeserve("pull", REPO)

    assert seen.status == 1
    assert "Git LFS pointer" in " ".join(seen.err.split())
    assert list(models.rglob("*.gguf")) == []


def test_names_that_leave_the_folder_are_not_listed(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.repos["bad/bad"] = {"../../x-Q4_K_M.gguf": MODEL, "a\0.gguf": MODEL}

    seen = edgeserve("pull", "bad/bad")

    assert seen.status == 1
    assert "has no GGUF file" in seen.err
    assert not models.exists()
