"""Pulls of several nodes: one download, and copies from one another."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from edgeserve.desired import INTERNET, PIECE
from edgeserve.http.types import Request
from edgeserve.models.pull.arrival import UNFINISHED
from tests.edgeserve.models.pull.repository import FILE, MODEL, REPO
from tests.fakes.hub import Hub
from tests.node.pulls.pulling_nodes import some_nodes

LARGE = b"GGUF" + os.urandom(5 * PIECE + 1000)
PIECES = 6


def parts(models: Path) -> list[Path]:
    return sorted((models / UNFINISHED).glob("*"))


async def test_for_three_nodes_the_internet_is_crossed_once(
    hub: Hub, tmp_path: Path
) -> None:
    async with some_nodes(tmp_path, "a", "b", "c") as nodes:
        orders = [
            (each, each.order(REPO, *(other for other in nodes if other is not each)))
            for each in nodes
        ]
        reports = [await node.until(id_) for node, id_ in orders]

    assert [each.state for each in reports] == ["done"] * 3, reports
    assert [each.origins == (INTERNET,) for each in reports] == [True, False, False]
    for node in nodes:
        assert (node.models / REPO / FILE).read_bytes() == MODEL
        assert parts(node.models) == []
    assert hub.downloads() == [""]


async def test_a_copy_comes_from_several_nodes_at_once(
    hub: Hub, tmp_path: Path
) -> None:
    hub.repos[REPO][FILE] = LARGE
    async with some_nodes(tmp_path, "a", "b", "c") as (a, b, c):
        for each in (a, b):
            each.put("elsewhere/any-name.gguf", LARGE)
        report = await c.until(c.order(REPO, a, b))

    assert report.state == "done", report
    assert set(report.origins) == {"a", "b"}
    assert hub.downloads() == []
    assert (c.models / REPO / FILE).read_bytes() == LARGE


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


async def test_a_cancelled_copy_is_kept_and_goes_on(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO][FILE] = LARGE
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        a.put("model.gguf", LARGE)
        id_ = b.order(REPO, a)
        await b.until(id_, lambda report: report.done >= PIECE)
        b.pulling.jobs.cancel(id_)
        report = await b.until(id_)
        (part,) = parts(b.models) if report.state == "cancelled" else (None,)
        kept = part.stat().st_size if part else len(LARGE)
        a.asked.clear()
        again = await b.until(b.order(REPO, a))

    assert again.state == "done", again
    assert kept >= PIECE
    if part:
        assert f"bytes=0-{PIECE - 1}" not in a.sent()
    assert (b.models / REPO / FILE).read_bytes() == LARGE


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
