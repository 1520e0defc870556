"""Copies from one another that are damaged, cut off, late, or find no room."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeserve.http.types import Request
from edgeserve.models.pull.arrival import UNFINISHED
from edgeserve.orders.pulls import INTERNET, PIECE, Peer, PullOrder
from node.pulls.shared import Wanted
from tests.edgeserve.models.pull.repository import FILE, MODEL, REPO
from tests.fakes.hub import Hub
from tests.fleet.test_disk import mount
from tests.node.pulls.pulling_nodes import LARGE, PIECES, parts, some_nodes


async def test_a_damaged_copy_is_refused_and_its_pieces_come_from_elsewhere(
    hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO][FILE] = LARGE
    async with some_nodes(tmp_path, "a", "b", "c") as (a, b, c):
        for each in (a, b):
            path = each.put("model.gguf", LARGE)
            await each.known(path)
        decay(a.models / "model.gguf")
        report = await c.until(c.order(REPO, a, b))

    assert report.state == "done", report
    assert (c.models / REPO / FILE).read_bytes() == LARGE
    assert report.origins == ("b",)
    assert hub.downloads() == []


async def test_a_damaged_copy_that_is_the_only_one_is_not_taken(
    hub: Hub, tmp_path: Path
) -> None:
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        path = a.put("model.gguf", MODEL)
        await a.known(path)
        decay(path)
        report = await b.until(b.order(REPO, a))

    assert report.state == "done", report
    assert (b.models / REPO / FILE).read_bytes() == MODEL
    assert report.origins == (INTERNET,)
    assert "a could not give" in report.notes[-1]
    assert "damaged" in report.notes[-1]
    assert hub.downloads() == [""]


def decay(path: Path) -> None:
    """Change each piece of a file, and nothing that its stamp shows."""
    about = path.stat()
    with path.open("r+b") as file:
        for first in range(100, about.st_size, PIECE):
            file.seek(first)
            file.write(b"!!!!!!!!")
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


@pytest.mark.usefixtures("slept")
async def test_a_node_that_is_lost_in_the_middle_is_replaced(
    hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO][FILE] = LARGE
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        a.put("model.gguf", LARGE)

        def lost(_: Request) -> None:
            if len(a.sent()) > 2:
                raise ConnectionResetError

        a.before = lost
        report = await b.until(b.order(REPO, a))

    assert report.state == "done", report
    assert report.origins == ("a", INTERNET)
    (range_,) = hub.downloads()
    assert range_ in {f"bytes={PIECE}-", f"bytes={2 * PIECE}-"}
    assert (b.models / REPO / FILE).read_bytes() == LARGE


async def test_a_node_that_falls_silent_delays_nothing(
    hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO][FILE] = LARGE
    async with some_nodes(tmp_path, "a", "b", "c") as (a, b, c):
        for each in (a, b):
            await each.known(each.put("model.gguf", LARGE))
        a.silent = True
        report = await c.until(c.order(REPO, a, b))

    assert report.state == "done", report
    assert report.origins == ("b",)
    assert len(a.sent()) > 0
    assert hub.downloads() == []


async def test_a_node_that_is_gone_is_not_waited_for(hub: Hub, tmp_path: Path) -> None:
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        gone = Peer(id="0", name="gone", urls=("http://127.0.0.1:9", "no url"))
        order = PullOrder(source=REPO, peers=(gone, a.peer))
        report = await b.until(b.pulling.jobs.order(order).id)

    assert report.state == "done", report
    assert report.origins == (INTERNET,)
    assert hub.downloads() == [""]


async def test_what_was_kept_wrong_comes_anew(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO][FILE] = LARGE
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        a.put("model.gguf", LARGE)
        part = b.models / UNFINISHED / f"{hashlib.sha256(LARGE).hexdigest()}.part"
        part.parent.mkdir()
        part.write_bytes(LARGE[:PIECE] + b"!" * PIECE)
        report = await b.until(b.order(REPO, a))

    assert report.state == "done", report
    assert f"bytes=0-{PIECE - 1}" not in a.sent()
    assert len(a.sent()) == PIECES - 1
    assert (b.models / REPO / FILE).read_bytes() == LARGE


async def test_a_disk_that_fills_up_leaves_nothing_broken(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[REPO][FILE] = LARGE
    small = tmp_path / "b"
    small.mkdir()
    if os.geteuid() or not mount(small, "size=12m"):
        pytest.skip("needs root to mount a small disk")
    try:
        usage = shutil.disk_usage("/")  # it was free when it was looked at
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        async with some_nodes(tmp_path, "a", "b") as (a, b):
            a.put("model.gguf", LARGE)
            report = await b.until(b.order(REPO, a))
            models, unfinished = list(b.models.rglob("*.gguf")), parts(b.models)
            served = await b.pulling.library.find(Wanted())
            subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
            again = await b.until(b.order(REPO, a))
            came = (b.models / REPO / FILE).read_bytes()
    finally:
        subprocess.run(["umount", "-l", small], check=True)

    assert report.state == "failed"
    assert "cannot write to" in report.problem
    assert "No space left on device" in report.problem
    assert models == []
    assert len(unfinished) == 1
    assert served.files == ()
    assert again.state == "done", again
    assert came == LARGE
    assert hub.downloads() == []


async def test_room_is_checked_before_anything_is_copied(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=len(MODEL))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        a.put("model.gguf", MODEL)
        report = await b.until(b.order(REPO, a))

    assert report.state == "failed"
    assert "free" in report.problem
    assert a.sent() == []
    assert hub.downloads() == []
