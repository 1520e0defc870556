"""Pulls that break off, fill the disk, come damaged or meet another one."""

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from edgeserve.models.pull import arrival
from edgeserve.runtime.files import open_lock, take_lock
from tests.edgeserve.models.pull.repository import FILE, MODEL, REPO, unfinished
from tests.fakes.hub import Hub
from tests.fakes.terminal import Terminal
from tests.patience import PATIENCE


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
    assert "64 MiB shall stay free" in seen.err
    assert "EDGESERVE_MODELS_DIR" in seen.err
    assert hub.downloads() == []


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


def test_a_folder_that_cannot_be_read_has_no_abandoned_parts(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", refused)

    assert arrival.remove_abandoned(models) == []


def test_abandoned_parts_are_removed_by_the_next_pull(
    hub: Hub, models: Path, edgeserve: Terminal
) -> None:
    old, fresh, locked = (
        models / arrival.UNFINISHED / f"{name}.part"
        for name in ("old", "new", "in-use")
    )
    old.parent.mkdir(parents=True)
    long_ago = time.time() - arrival.ABANDONED - 60
    for part in (old, fresh, locked):
        part.write_bytes(b"GGUF")
        if part != fresh:
            os.utime(part, (long_ago, long_ago))
    with open_lock(locked) as lock:
        take_lock(lock, lambda: None)
        edgeserve("pull", REPO)

    assert unfinished(models) == [locked, fresh]
    assert (models / REPO / FILE).read_bytes() == MODEL
    assert hub.downloads() == [""]


@pytest.mark.usefixtures("models")
def test_a_revision_is_named_by_an_option(hub: Hub, edgeserve: Terminal) -> None:
    edgeserve("pull", REPO, "--revision", "v2")
    refused = edgeserve("pull", "/nowhere/x.gguf", "--revision", "v2")

    assert hub.asked[0][0].endswith("/revision/v2")
    assert "only sources of the hub have a revision" in refused.err
