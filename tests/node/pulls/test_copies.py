"""Pulls of several nodes: one download, and copies from one another."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest

from edgeserve.errors import BadRequest
from edgeserve.http.types import Request
from edgeserve.models.download import NotFetched, Show
from edgeserve.models.pull.arrival import UNFINISHED
from edgeserve.models.pull.plan import PullPlan, planned
from edgeserve.models.pull.sources import Source
from edgeserve.orders.pulls import INTERNET, PIECE, Peer, PullOrder, SharedFile
from node.pulls import jobs
from node.pulls.fetching import from_peer
from node.pulls.shared import Wanted
from tests.edgeserve.models.pull.repository import FILE, MODEL, REPO
from tests.fakes.gguf import a_model
from tests.fakes.hub import Hub
from tests.fleet.test_disk import mount
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


async def test_where_the_first_node_gives_up_the_next_downloads(
    hub: Hub, tmp_path: Path
) -> None:
    hub.held = threading.Event()
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        first = a.order(REPO, b)
        second = b.order(REPO, a)
        await b.until(second, lambda report: report.step == "a fetches it")
        a.pulling.jobs.cancel(first)
        hub.held.set()
        given_up, report = await a.until(first), await b.until(second)

    assert given_up.state in {"cancelled", "done"}
    assert report.state == "done", report
    assert report.origins in {(INTERNET,), ("a",)}


@pytest.mark.parametrize("knows", ["a", "b"])
async def test_one_node_that_may_read_a_gated_repository_is_enough(
    knows: str, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_up(source: Source, folder: Path, show: Show) -> PullPlan:
        if folder.parent.name != knows:
            raise NotFetched("the repository is gated")
        return planned(source, folder, show)

    monkeypatch.setattr("node.pulls.fetching.planned", looked_up)
    async with some_nodes(tmp_path, "a", "b", "c") as nodes:
        orders = [
            (each, each.order(REPO, *(other for other in nodes if other is not each)))
            for each in nodes
        ]
        reports = {node.id: await node.until(id_) for node, id_ in orders}

    assert {each.state for each in reports.values()} == {"done"}, reports
    assert [id_ for id_, each in reports.items() if INTERNET in each.origins] == [knows]
    for node in nodes:
        assert (node.models / REPO / FILE).read_bytes() == MODEL
    assert hub.downloads() == [""]


async def test_where_no_node_can_look_a_source_up_each_says_why(
    hub: Hub, tmp_path: Path
) -> None:
    hub.gated.add(REPO)
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        orders = [(a, a.order(REPO, b)), (b, b.order(REPO, a))]
        reports = [await node.until(id_) for node, id_ in orders]

    assert [each.state for each in reports] == ["failed"] * 2
    assert all("is gated" in each.problem for each in reports)


async def test_a_node_that_is_gone_is_not_waited_for(hub: Hub, tmp_path: Path) -> None:
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        gone = Peer(id="0", name="gone", urls=("http://127.0.0.1:9", "no url"))
        order = PullOrder(source=REPO, peers=(gone, a.peer))
        report = await b.until(b.pulling.jobs.order(order).id)

    assert report.state == "done", report
    assert report.origins == (INTERNET,)
    assert hub.downloads() == [""]


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


async def test_a_pull_is_ordered_anew_while_a_cancelled_one_still_ends(
    hub: Hub, tmp_path: Path
) -> None:
    hub.held = threading.Event()
    async with some_nodes(tmp_path, "a") as (a,):
        cancelled = a.order(REPO)
        await a.until(cancelled, lambda _: bool(hub.downloads()))
        a.pulling.jobs.cancel(cancelled)
        again = a.order(REPO)
        joined = a.order(REPO)
        hub.held.set()
        report = await a.until(again)

    assert joined == again != cancelled
    assert report.state == "done", report


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


async def test_a_file_of_the_web_crosses_the_internet_once_too(
    hub: Hub, tmp_path: Path
) -> None:
    url = f"{hub.url}/cdn/{REPO}/{FILE}"
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        first = await a.until(a.order(url, b))
        second = await b.until(b.order(url, a))

    assert (first.state, second.state) == ("done", "done"), (first, second)
    assert second.origins == ("a",)
    assert Path(second.path).read_bytes() == MODEL


async def test_parts_and_projector_come_along_and_from_where_they_are(
    hub: Hub, tmp_path: Path
) -> None:
    model = a_model(tmp_path / "model.gguf").read_bytes()
    names = [f"m-Q8_0-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.repos["org/m"] = {**dict.fromkeys(names, model), "mmproj-F16.gguf": MODEL}
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        a.put("elsewhere.gguf", MODEL)
        report = await b.until(b.order("org/m:Q8_0", a))

    folder = b.models / "org/m"
    assert report.path == str(folder / names[0])
    assert sorted(each.name for each in folder.iterdir()) == [*names, "mmproj-F16.gguf"]
    assert len([path for path, _ in hub.asked if "mmproj" in path]) == 0


async def test_one_pull_of_a_source_at_a_time(hub: Hub, tmp_path: Path) -> None:
    hub.held = threading.Event()
    async with some_nodes(tmp_path, "a") as (a,):
        first, second = a.order(REPO), a.order(REPO)
        hub.held.set()
        report = await a.until(first)

    assert first == second
    assert report.state == "done"
    assert hub.downloads() == [""]


async def test_a_node_reports_at_most_twice_a_second(hub: Hub, tmp_path: Path) -> None:
    hub.repos[REPO][FILE] = LARGE
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        a.put("model.gguf", LARGE)
        began = time.monotonic()
        await b.until(b.order(REPO, a))
        seconds = time.monotonic() - began

    assert 2 <= len(b.news) <= 3 + seconds / jobs.TELL_SECONDS


async def test_a_node_that_has_the_model_of_that_name_needs_no_other(
    tmp_path: Path,
) -> None:
    async with some_nodes(tmp_path, "a", "b") as (a, b):
        here = a_model(a.models / "small-Q8_0.gguf")
        had, got = [await each.until(each.order("small", a, b)) for each in (a, b)]

    assert (had.state, had.origins) == ("done", ())
    assert (got.state, got.origins) == ("done", ("a",))
    assert (b.models / here.name).read_bytes() == here.read_bytes()


@pytest.mark.parametrize("source", ["/etc/passwd", "a/b/c/d", "https://x.org/page"])
async def test_a_source_that_no_node_can_use_is_refused(
    source: str, tmp_path: Path
) -> None:
    async with some_nodes(tmp_path, "a") as (a,):
        with pytest.raises(BadRequest):
            a.order(source)


@pytest.mark.parametrize(
    "name", ["../above.gguf", "/etc/x.gguf", ".pulling/x.gguf", "x.txt", "a\nb.gguf"]
)
def test_a_peer_cannot_choose_where_its_file_goes(name: str, tmp_path: Path) -> None:
    file = SharedFile(sha256="0" * 64, size=1, name=name, variant="m:Q8_0")
    peer = Peer(id="a", name="a", urls=())

    with pytest.raises(NotFetched, match="no name to use"):
        from_peer(peer, file, tmp_path)


async def test_a_revision_is_asked_for(hub: Hub, tmp_path: Path) -> None:
    async with some_nodes(tmp_path, "a") as (a,):
        report = await a.until(a.order(REPO, revision="v2"))

    assert report.state == "done", report
    assert hub.asked[0][0].endswith("/revision/v2")


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
