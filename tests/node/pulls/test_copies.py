"""Pulls of several nodes: one download, and copies from one another."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edgeserve.errors import BadRequest
from edgeserve.models.download import NotFetched, Show
from edgeserve.models.pull.plan import PullPlan, planned
from edgeserve.models.pull.sources import Source
from edgeserve.orders.pulls import INTERNET, PIECE, Peer, SharedFile
from node.pulls import jobs
from node.pulls.fetching import from_peer
from tests.edgeserve.models.pull.repository import FILE, MODEL, REPO
from tests.fakes.gguf import a_model
from tests.fakes.hub import Hub
from tests.node.pulls.pulling_nodes import LARGE, parts, some_nodes


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


async def test_a_pull_that_has_ended_is_forgotten_when_it_is_withdrawn(
    hub: Hub, tmp_path: Path
) -> None:
    async with some_nodes(tmp_path, "a") as (a,):
        id_ = a.order(REPO)
        ended = await a.until(id_)
        a.pulling.jobs.cancel(id_)

    assert (ended.state, len(hub.downloads())) == ("done", 1)
    assert a.pulling.jobs.reports == ()


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
