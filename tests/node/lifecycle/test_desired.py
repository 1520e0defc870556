from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.orders.engines import DESIRE, LOAD, DesiredModel
from node.lifecycle.desired import DesiredModels
from tests.node.lifecycle.ordering import engine, ordered, states

Room = Callable[[int], None]


async def test_a_pinned_model_loads_and_cannot_be_evicted(
    settings: NodeSettings, room: Room
) -> None:
    room(1)
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="absent", c="absent"))
        await here.desire("b", pinned=True)
        report = await here.until(states(b="ready"))
        refused = await here.refused(LOAD, engine="a:F16", drain=True)
        await here.desire("b")
        await here.until(states(a="absent", b="ready", c="absent"))

    assert engine(report, "b").pinned
    assert report.unmet == ()
    assert [each.model for each in report.desired] == ["b"]
    assert refused == (409, "does_not_fit", False)


async def test_a_pin_outlives_a_restart(settings: NodeSettings, room: Room) -> None:
    room(1)
    async with ordered(settings) as here:
        await here.desire("c", pinned=True)
        await here.until(states(c="ready"))
    async with ordered(settings) as here:
        report = await here.until(states(c="ready"))
        await here.desire("c")
        free = await here.until(states(a="absent", b="absent", c="ready"))

    assert engine(report, "c").pinned
    assert not engine(free, "c").pinned


async def test_what_is_wrong_with_a_desired_model_is_told_and_mended(
    settings: NodeSettings, room: Room, folder: Path, model: Path
) -> None:
    room(1)
    (folder / "c-F16.gguf").rename(folder / "bad-F16.gguf")
    async with ordered(dataclasses.replace(settings, models=("a",))) as here:
        await here.desire("b", pinned=True)
        await here.desire("d", pinned=True)
        report = await here.until(lambda report: len(report.unmet) == 2)
        found = {each.model: each.code for each in report.unmet}
        assert found == {"b": "does_not_fit", "d": "missing"}
        assert all(each.reason and each.remedy for each in report.unmet)
        room(3)
        shutil.copy(model, folder / "d-F16.gguf")
        await here.until(lambda report: report.unmet == ())
        room(4)
        await here.desire("bad", pinned=True)
        report = await here.until(
            lambda report: [each.code for each in report.unmet] == ["failed"]
        )

    assert [(each.model, each.code) for each in report.unmet] == [("bad", "failed")]


async def test_a_forbidden_model_leaves_after_its_requests_and_never_loads(
    settings: NodeSettings, hold: Path
) -> None:
    async with ordered(dataclasses.replace(settings, models=("b",))) as here:
        await here.until(states(a="absent", b="ready", c="absent"))
        hold.touch()
        chat = asyncio.create_task(here.chat("b"))
        await here.until(states(a="absent", b="busy", c="absent"))
        await here.desire("b", forbidden=True)
        await here.until(lambda report: engine(report, "b").state == "leaving")
        assert not chat.done()
        hold.unlink()
        answer = await chat
        report = await here.until(states(a="absent", c="absent"))
        refused = await here.refused(LOAD, engine="b:F16")
        await here.desire("b")
        await here.until(states(a="absent", b="ready", c="absent"))

    assert answer.endswith(b"data: [DONE]\n\n")
    assert refused == (409, "model_forbidden", False)
    assert [(each.model, each.code) for each in report.unmet] == [("b", "forbidden")]
    assert [each.reason for each in report.available] == [
        "it is forbidden on this node"
    ]


async def test_idle_engines_are_unloaded_down_to_none_but_for_named_ones(
    settings: NodeSettings,
) -> None:
    brief = dataclasses.replace(settings, keep_alive=0.2)
    async with ordered(dataclasses.replace(brief, models=("b",))) as here:
        await here.until(states(a="absent", b="ready", c="absent"))
        await here.load("a")
        await here.until(states(a="ready", b="ready", c="absent"))
        await here.until(states(a="absent", b="ready", c="absent"))
    async with ordered(brief) as here:
        await here.until(states(a="absent", b="absent", c="absent"))
        await here.desire("a", keep_alive=0)
        await here.load("a")
        await here.load("b")
        await here.until(states(a="ready", b="ready", c="absent"))
        await here.until(states(a="ready", b="absent", c="absent"))


async def test_a_model_is_not_both_pinned_and_forbidden(settings: NodeSettings) -> None:
    async with ordered(settings) as here:
        both = await here.refused(DESIRE, model="a", pinned=True, forbidden=True)
        unnamed = await here.refused(DESIRE, model=" ", pinned=True)

    assert both == unnamed == (400, "bad_request", False)


def test_a_damaged_file_is_a_warning_and_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desired = DesiredModels(tmp_path)
    desired.take(DesiredModel(model="A B", pinned=True))
    desired.save()
    again = DesiredModels(tmp_path).models
    (tmp_path / "models.json").write_text("[1, 2")
    with caplog.at_level(logging.WARNING):
        damaged = DesiredModels(tmp_path).models

    assert again == desired.models
    assert damaged == ()
    assert "models.json" in caplog.text


def test_what_is_said_of_a_variant_counts_before_its_model(tmp_path: Path) -> None:
    desired = DesiredModels(tmp_path)
    desired.take(DesiredModel(model="a", keep_alive=60))
    desired.take(DesiredModel(model="a:F16", keep_alive=0))

    assert desired.keep_alive("a", "a:F16", 5) == 0
    assert desired.keep_alive("a", "a:Q8_0", 5) == 60
    assert desired.keep_alive("b", "b:Q8_0", 5) == 5


async def test_what_is_forbidden_while_it_waits_to_load_does_not_load(
    settings: NodeSettings, room: Room, hold: Path
) -> None:
    room(1)
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="absent", c="absent"))
        hold.touch()
        chat = asyncio.create_task(here.chat("a"))
        await here.until(states(a="busy", b="absent", c="absent"))
        await here.load("b", drain=True)
        await here.desire("b", forbidden=True)
        report = await here.until(states(a="busy", c="absent"))
        hold.unlink()
        await chat

    assert engine(report, "a").epoch == 1  # it did not have to leave


async def test_a_pin_keeps_what_was_about_to_leave(
    settings: NodeSettings, hold: Path
) -> None:
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="ready", c="ready"))
        hold.touch()
        chat = asyncio.create_task(here.chat("a"))
        await here.until(states(a="busy", b="ready", c="ready"))
        await here.unload("a")
        await here.until(states(a="leaving", b="ready", c="ready"))
        await here.desire("a", pinned=True)
        report = await here.until(states(a="busy", b="ready", c="ready"))
        hold.unlink()
        await chat

    assert engine(report, "a").pinned
