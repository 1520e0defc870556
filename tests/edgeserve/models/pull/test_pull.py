import hashlib
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from huggingface_hub import close_session, constants

from edgeserve.models.pull import arrival
from node.models.library import scan
from tests.fakes.gguf import a_model
from tests.fakes.hub import COMMIT, TOKEN, Hub, a_hub
from tests.fakes.terminal import Terminal
from tests.patience import PATIENCE

MODEL = b"GGUF" + bytes(range(256)) * 2048
OTHER = b"GGUF" + bytes(range(255, -1, -1)) * 2048
REPO = "org/tiny-GGUF"
FILE = "tiny-Q4_K_M.gguf"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """The hub that huggingface_hub asks, with one repository."""
    with a_hub() as hub:
        hub.repos[REPO] = {"README.md": b"#", FILE: MODEL, "tiny-Q8_0.gguf": OTHER}
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield hub
        close_session()


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which take no time."""
    waits = list[float]()
    monkeypatch.setattr("edgeserve.models.pull.transfer.time.sleep", waits.append)
    return waits


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "models"


def environment(hub: Hub, models: Path, home: Path) -> dict[str, str]:
    """Return the variables of a process that asks this hub."""
    return {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home / "home"),
        "EDGESERVE_MODELS_DIR": str(models),
    }


def until(true: Callable[[], bool]) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def unfinished(models: Path) -> list[Path]:
    return sorted((models / arrival.UNFINISHED).iterdir())


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
def test_an_interrupted_download_goes_on_where_it_stopped(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.cut_after, hub.cuts = 100_000, 1

    edgeserve("pull", REPO)

    assert hub.downloads() == ["", "bytes=100000-"]
    assert (models / REPO / FILE).read_bytes() == MODEL


def test_the_next_command_goes_on_too_and_no_part_is_named_like_a_model(
    hub: Hub, models: Path, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: float) -> None:
        raise KeyboardInterrupt

    hub.cut_after, hub.cuts = 100_000, 1
    with monkeypatch.context() as patched:
        patched.setattr("edgeserve.models.pull.transfer.time.sleep", killed)
        seen = edgeserve("pull", REPO)

    assert seen.status == 1
    assert "goes on from where it stopped" in seen.err
    (part,) = unfinished(models)
    assert part.stat().st_size == 100_000
    assert list(models.rglob("*.gguf")) == []

    edgeserve("pull", REPO)

    assert hub.downloads() == ["", "bytes=100000-"]
    assert (models / REPO / FILE).read_bytes() == MODEL


@pytest.mark.usefixtures("slept")
def test_a_server_without_ranges_begins_again(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.ranges = False
    hub.cut_after, hub.cuts = 100_000, 1

    edgeserve("pull", REPO)

    assert (models / REPO / FILE).read_bytes() == MODEL


@pytest.mark.usefixtures("models", "slept")
def test_a_connection_that_never_holds_is_given_up(
    hub: Hub, edgeserve: Terminal
) -> None:
    hub.cut_after, hub.cuts = 0, 99

    seen = edgeserve("pull", REPO)

    assert seen.status == 1
    assert "again and again" in " ".join(seen.err.split())


def test_what_was_kept_wrong_is_fetched_anew(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    part = models / arrival.UNFINISHED / f"{hashlib.sha256(MODEL).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"!" * 1000)

    edgeserve("pull", REPO)

    assert hub.downloads() == ["bytes=1000-", ""]
    assert (models / REPO / FILE).read_bytes() == MODEL


def test_a_wrong_checksum_keeps_nothing(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.announced[FILE] = "0" * 64

    seen = edgeserve("pull", REPO)

    assert seen.status == 1
    assert "SHA-256" in seen.err
    assert list(models.rglob("*.gguf")) == unfinished(models) == []


@pytest.mark.usefixtures("models")
def test_a_full_disk_is_noticed_before_anything_is_fetched(
    hub: Hub, edgeserve: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=len(MODEL))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    seen = edgeserve("pull", REPO)

    assert seen.status == 1
    assert "EDGESERVE_MODELS_DIR" in seen.err
    assert hub.downloads() == []


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


def test_a_second_process_waits_and_downloads_nothing(
    hub: Hub, models: Path, tmp_path: Path
) -> None:
    hub.held = threading.Event()
    env = environment(hub, models, tmp_path)
    command = [sys.executable, "-m", "edgeserve", "pull", REPO]
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)
        for _ in range(2)
    ]
    try:
        until(lambda: sum("/api/models/" in path for path, _ in hub.asked) == 2)
        until(lambda: any("/cdn/" in path for path, _ in hub.asked))
        hub.held.set()
        ends = [each.communicate(timeout=PATIENCE) for each in running]
    finally:
        for each in running:
            each.kill()

    assert [each.returncode for each in running] == [0, 0], ends
    assert (models / REPO / FILE).read_bytes() == MODEL
    assert len(hub.downloads()) == 1


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


def test_a_disk_that_fills_up_keeps_what_has_come(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        seen = edgeserve("pull", REPO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    edgeserve("pull", REPO)

    assert seen.status == 1
    assert f"cannot write to {models}" in seen.err
    assert hub.downloads() == ["", "bytes=200000-"]
    assert (models / REPO / FILE).read_bytes() == MODEL


def test_a_killed_process_leaves_what_it_had(
    hub: Hub, models: Path, edgeserve: Terminal, tmp_path: Path
) -> None:
    hub.cut_after, hub.cuts, hub.stay = 100_000, 1, threading.Event()
    running = subprocess.Popen(
        [sys.executable, "-m", "edgeserve", "pull", REPO],
        env=environment(hub, models, tmp_path),
    )
    try:
        until(lambda: any(part.stat().st_size for part in models.glob(".pulling/*")))
    finally:
        running.kill()
        running.wait(PATIENCE)
    hub.stay.set()

    edgeserve("pull", REPO)

    (first, second) = hub.downloads()
    assert first == ""
    assert second.startswith("bytes=")
    assert (models / REPO / FILE).read_bytes() == MODEL


def test_names_that_leave_the_folder_are_not_listed(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    hub.repos["bad/bad"] = {"../../x-Q4_K_M.gguf": MODEL, "a\0.gguf": MODEL}

    seen = edgeserve("pull", "bad/bad")

    assert seen.status == 1
    assert "has no GGUF file" in seen.err
    assert not models.exists()
