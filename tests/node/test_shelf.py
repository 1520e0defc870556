"""A node in this process follows its models folder; the engines only pretend."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

import node.shelf
from edgeserve.config.settings import NodeSettings
from edgeserve.wire import Memory, NodeReport, decode
from node.app import serve
from node.engines.process import free_port
from tests.fakes.gguf import a_model
from tests.fleet.llama_server import script
from tests.patience import PATIENCE

CHAT = {"messages": [{"role": "user", "content": "hello"}], "stream": True}
EVERY = 0.1

Seen = Callable[[NodeReport], object]


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.shelf, "EVERY", EVERY)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_model(tmp_path_factory.mktemp("elsewhere") / "new-F16.gguf")


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(model, folder / "old-F16.gguf")
    return folder


@pytest.fixture
def settings(tmp_path: Path, folder: Path) -> NodeSettings:
    flags = ("--hold", str(tmp_path / "hold"))
    return NodeSettings(
        name="kitchen",
        port=free_port(),
        state_dir=tmp_path / "state",
        models_dir=folder,
        llama_server=script(tmp_path / "llama-server", *flags),
        slots=1,
        advertise=False,
    )


class Watched:
    """A node in this process, whose event stream is followed."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client

    async def until(self, seen: Seen) -> NodeReport:
        """Follow the events until the node's report is as wanted."""
        async with (
            asyncio.timeout(PATIENCE),
            self.client.get("/edgeserve/v1/events") as answer,
        ):
            while line := await answer.content.readline():
                if line.startswith((b"event: report", b"event: engine")):
                    report = await self.report()
                    if seen(report):
                        return report
        pytest.fail("the events ended")

    async def report(self) -> NodeReport:
        async with self.client.get("/edgeserve/v1/node") as answer:
            return decode(await answer.read(), NodeReport)

    async def looks(self, number: int = 4) -> None:
        """Let the node look at the folder so often."""
        await asyncio.sleep(number * EVERY)

    async def chat(self, name: str) -> bytes:
        body = {**CHAT, "model": name}
        async with self.client.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.read()


@asynccontextmanager
async def running(settings: NodeSettings) -> AsyncGenerator[Watched]:
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings, stop))
    url = f"http://127.0.0.1:{settings.port}"
    try:
        async with aiohttp.ClientSession(url) as client, asyncio.timeout(5 * PATIENCE):
            while not serving.done():
                try:
                    async with client.get("/health"):
                        break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.01)
            yield Watched(client)
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE):
            await serving


def ready(*names: str) -> Seen:
    """Whether exactly these models are served, all of them ready."""

    def seen(report: NodeReport) -> bool:
        states = {each.model: each.state for each in report.engines}
        return states == dict.fromkeys(names, "ready")

    return seen


async def test_a_file_copied_in_is_announced_and_callable(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    async with running(settings) as here:
        before = await here.until(ready("old"))
        shutil.copy(model, folder)
        after = await here.until(ready("old", "new"))
        answer = await here.chat("new")

    assert answer.endswith(b"data: [DONE]\n\n")
    old = {each.model: each.epoch for each in after.engines}["old"]
    assert old == before.engines[0].epoch == 1  # it was left alone


async def test_a_model_in_an_empty_folder_ends_the_problem(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    (folder / "old-F16.gguf").unlink()
    async with running(settings) as here:
        report = await here.until(lambda report: report.problems)
        assert "no model in" in report.problems[0]
        shutil.copy(model, folder)
        report = await here.until(ready("new"))

    assert report.problems == ()


async def test_a_half_copied_file_is_taken_only_when_it_is_complete(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    content = model.read_bytes()
    async with running(settings) as here:
        await here.until(ready("old"))
        with (folder / "new-F16.gguf").open("wb") as file:
            file.write(content[:-100])
            file.flush()
            stalled = await here.until(lambda report: report.problems)
            file.write(content[-100:])
        done = await here.until(ready("old", "new"))

    assert [each.model for each in stalled.engines] == ["old"]
    assert "is cut short" in stalled.problems[0]
    assert done.problems == ()


async def test_a_file_that_keeps_growing_is_left_alone(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    async with running(settings) as here:
        await here.until(ready("old"))
        growing = folder / "new-F16.gguf"
        shutil.copy(model, growing)
        for _ in range(30):
            with growing.open("ab") as file:
                file.write(b"more")
            await asyncio.sleep(EVERY / 3)
        report = await here.report()
        assert [each.model for each in report.engines] == ["old"]
        assert report.problems == ()
        await here.until(ready("old", "new"))


async def test_a_replaced_file_restarts_its_engine_after_running_requests(
    settings: NodeSettings, folder: Path, model: Path, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    async with running(settings) as here:
        await here.until(ready("old"))
        hold.touch()
        chat = asyncio.create_task(here.chat("old"))
        await here.until(lambda report: report.engines[0].state == "busy")
        shutil.copy(model, folder / ".part")
        (folder / ".part").replace(folder / "old-F16.gguf")
        waiting = await here.until(lambda report: report.engines[0].state == "loading")
        assert not chat.done()
        hold.unlink()
        answer = await chat
        await here.until(lambda report: report.engines[0].reason is None)
        await here.until(ready("old"))
        again = await here.chat("old")

    assert "its file was replaced" in (waiting.engines[0].reason or "")
    assert answer.endswith(b"data: [DONE]\n\n")
    assert again.endswith(b"data: [DONE]\n\n")


async def test_a_removed_model_finishes_its_request_and_leaves_the_report(
    settings: NodeSettings, folder: Path, model: Path, tmp_path: Path
) -> None:
    shutil.copy(model, folder)
    hold = tmp_path / "hold"
    async with running(settings) as here:
        await here.until(ready("old", "new"))
        hold.touch()
        chat = asyncio.create_task(here.chat("new"))
        await here.until(
            lambda report: "busy" in {each.state for each in report.engines}
        )
        (folder / "new-F16.gguf").unlink()
        await here.until(ready("old"))
        assert not chat.done()
        body = {**CHAT, "model": "new"}
        async with here.client.post("/v1/chat/completions", json=body) as late:
            pass
        hold.unlink()
        answer = await chat

    assert late.status == 404
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_an_unreadable_folder_ends_no_engine_and_is_told_once(
    settings: NodeSettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real = os.scandir
    closed = False

    def scandir(path: str | Path) -> object:
        if closed and Path(path) == settings.models_dir:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    async with running(settings) as here:
        await here.until(ready("old"))
        monkeypatch.setattr(os, "scandir", scandir)
        closed = True
        report = await here.until(lambda report: report.problems)
        await here.looks()
        answer = await here.chat("old")
        closed = False
        mended = await here.until(lambda report: not report.problems)

    assert ready("old")(report)
    assert "cannot read the models folder" in report.problems[0]
    assert caplog.text.count("cannot read the models folder") == 1
    assert answer.endswith(b"data: [DONE]\n\n")
    assert mended.engines[0].epoch == 1


async def test_where_models_are_named_another_one_is_only_available(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    named = dataclasses.replace(settings, models=("old",))
    async with running(named) as here:
        await here.until(ready("old"))
        shutil.copy(model, folder)
        report = await here.until(lambda report: report.available)

    assert ready("old")(report)
    assert report.problems == ()
    assert [each.variant for each in report.available] == ["new:F16"]
    assert "--model" in report.available[0].remedy


async def test_a_named_model_that_arrives_later_is_served(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    named = dataclasses.replace(settings, models=("old", "new"))
    async with running(named) as here:
        report = await here.until(ready("old"))
        assert "no model 'new'" in report.problems[0]
        shutil.copy(model, folder)
        report = await here.until(ready("old", "new"))

    assert report.problems == ()


async def test_a_model_that_does_not_fit_is_available_with_the_reason(
    settings: NodeSettings,
    folder: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(settings) as here:
        await here.until(ready("old"))
        full = Memory(total=2**30, available=0)
        monkeypatch.setattr(node.shelf, "memory", lambda: full)
        shutil.copy(model, folder)
        report = await here.until(lambda report: report.available)

    assert ready("old")(report)
    assert "is free" in report.problems[0]
    assert "is free" in report.available[0].reason


async def test_a_split_model_is_taken_when_its_last_part_is_there(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    async with running(settings) as here:
        await here.until(ready("old"))
        shutil.copy(model, folder / "big-F16-00001-of-00002.gguf")
        report = await here.until(lambda report: report.problems)
        assert ready("old")(report)
        shutil.copy(model, folder / "big-F16-00002-of-00002.gguf")
        report = await here.until(ready("old", "big"))

    assert report.problems == ()
