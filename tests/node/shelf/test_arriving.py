from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from pathlib import Path

import pytest

import node.lifecycle.running
from edgeserve.config.settings import NodeSettings
from edgeserve.reports.hardware import Memory
from tests.node.shelf.watched import EVERY, ready, running


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


async def test_where_models_are_named_another_one_loads_only_when_it_is_asked_for(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    named = dataclasses.replace(settings, models=("old",))
    async with running(named) as here:
        await here.until(ready("old"))
        shutil.copy(model, folder)
        report = await here.until(lambda report: len(report.engines) > 1)

    states = {each.model: (each.state, each.pinned) for each in report.engines}
    assert states == {"old": ("ready", True), "new": ("absent", False)}
    assert report.problems == ()
    assert report.available == ()


async def test_without_on_demand_another_model_is_only_available(
    settings: NodeSettings, folder: Path, model: Path
) -> None:
    named = dataclasses.replace(settings, models=("old",), on_demand=False)
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
        monkeypatch.setattr(node.lifecycle.running, "memory", lambda: full)
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
