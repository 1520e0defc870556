from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

from edgeserve.config.settings import NodeSettings
from edgeserve.orders.engines import LOAD, UNLOAD
from tests.node.lifecycle.ordering import engine, ordered, states
from tests.patience import PATIENCE

Room = Callable[[int], None]


async def test_what_has_no_room_at_the_start_is_absent_and_says_who_would_leave(
    settings: NodeSettings, room: Room
) -> None:
    room(2)
    async with ordered(settings) as here:
        report = await here.until(states(a="ready", b="ready", c="absent"))

    absent = engine(report, "c")
    assert len(absent.evicts) == 1
    assert absent.memory > 0
    assert absent.load_seconds > 1
    assert absent.launch == engine(report, "a").launch
    assert absent.created == int((settings.models_dir / "c-F16.gguf").stat().st_mtime)
    assert "by the size of its file" in (absent.reason or "")
    assert report.problems == ()
    assert report.available == ()


async def test_a_load_evicts_an_idle_engine_and_answers(
    settings: NodeSettings, room: Room
) -> None:
    room(1)
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="absent", c="absent"))
        begun = await here.load("b")
        await here.until(states(a="absent", b="ready", c="absent"))
        answer = await here.chat("b")
        again = await here.load("b")
        await here.load("a")
        report = await here.until(states(a="ready", b="absent", c="absent"))

    assert begun.state == "loading"
    assert begun.progress == 0.0
    assert answer.endswith(b"data: [DONE]\n\n")
    assert again.state == "ready"
    assert engine(report, "a").epoch == 2
    assert engine(report, "b").epoch == 1
    assert "its last load took" in (engine(report, "b").reason or "")


async def test_a_busy_engine_is_not_evicted_unless_it_is_drained(
    settings: NodeSettings, room: Room, hold: Path
) -> None:
    room(1)
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="absent", c="absent"))
        hold.touch()
        chat = asyncio.create_task(here.chat("a"))
        await here.until(states(a="busy", b="absent", c="absent"))
        refused = await here.refused(LOAD, engine="b:F16")
        waits = await here.load("b", drain=True)
        report = await here.until(states(a="leaving", b="loading", c="absent"))
        other = await here.refused(LOAD, engine="a:F16")
        assert not chat.done()
        hold.unlink()
        answer = await chat
        await here.until(states(a="absent", b="ready", c="absent"))

    assert refused == (409, "engines_busy", True)
    assert "waits until a:F16 has left" in (waits.reason or "")
    assert "b:F16 needs its memory" in (engine(report, "a").reason or "")
    assert other == (409, "engines_busy", True)
    assert answer.endswith(b"data: [DONE]\n\n")


async def test_with_room_left_nothing_leaves(
    settings: NodeSettings, room: Room
) -> None:
    room(2)
    async with ordered(dataclasses.replace(settings, models=("a",))) as here:
        await here.until(states(a="ready", b="absent", c="absent"))
        await here.load("b")
        report = await here.until(states(a="ready", b="ready", c="absent"))

    assert engine(report, "a").pinned
    assert engine(report, "a").epoch == 1
    assert engine(report, "c").evicts == ("b:F16",)


async def test_a_named_model_is_never_evicted(
    settings: NodeSettings, room: Room
) -> None:
    room(1)
    async with ordered(dataclasses.replace(settings, models=("a",))) as here:
        report = await here.until(states(a="ready"))
        refused = await here.refused(LOAD, engine="b:F16", drain=True)
        unloads = await here.refused(UNLOAD, engine="a:F16")

    assert refused == (409, "does_not_fit", False)
    assert unloads == (409, "model_pinned", False)
    assert {each.variant for each in report.available} == {"b:F16", "c:F16"}


async def test_an_unknown_engine_is_refused(settings: NodeSettings) -> None:
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="ready", c="ready"))
        found = [
            await here.refused(path, engine="nothing:F16") for path in (LOAD, UNLOAD)
        ]

    assert found == [(404, "engine_not_found", False)] * 2


async def test_what_was_unloaded_rests_until_it_is_asked_for(
    settings: NodeSettings, folder: Path
) -> None:
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="ready", c="ready"))
        await here.unload("a")
        await here.until(states(a="absent", b="ready", c="ready"))
        (folder / "c-F16.gguf").unlink()  # it plans again
        await here.until(states(a="absent", b="ready"))
        await here.load("a")
        await here.until(states(a="ready", b="ready"))


async def test_a_request_for_an_absent_engine_is_refused_like_one_that_loads(
    settings: NodeSettings,
) -> None:
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="ready", c="ready"))
        await here.unload("a")
        await here.until(states(a="absent", b="ready", c="ready"))
        body = {"model": "a", "prompt": "hello"}
        client = here.watched.client
        async with client.post("/v1/completions", json=body) as answer:
            found = await answer.json()

    assert answer.status == 503
    assert found["error"]["code"] == "no_node"
    assert "not loaded here" in found["error"]["message"]


async def test_a_model_that_fails_to_load_is_not_tried_again_for_a_while(
    settings: NodeSettings, folder: Path, room: Room
) -> None:
    room(1)
    (folder / "b-F16.gguf").rename(folder / "bad-F16.gguf")
    async with ordered(settings) as here:
        await here.until(states(a="ready", bad="absent", c="absent"))
        await here.load("bad")
        async with asyncio.timeout(PATIENCE):
            while (await here.post(LOAD, engine="bad:F16"))[0] == 202:
                await asyncio.sleep(0.05)
        report = await here.until(states(a="absent", bad="failed", c="absent"))
        refused = await here.refused(LOAD, engine="bad:F16")
        await here.load("a")
        await here.until(states(a="ready", bad="failed", c="absent"))

    assert "bad tensors" in (engine(report, "bad").reason or "")
    assert refused == (409, "load_failed", True)


async def test_two_loads_at_once_are_served_one_after_the_other(
    settings: NodeSettings, room: Room
) -> None:
    room(1)
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="absent", c="absent"))
        await asyncio.gather(*(here.load("b") for _ in range(5)))
        refused = await here.refused(LOAD, engine="c:F16", drain=True)
        await here.until(states(a="absent", b="ready", c="absent"))
        # It waits for the request that it was loaded for.
        early = await here.refused(LOAD, engine="c:F16", drain=True)
        await here.chat("b")
        await here.load("c")
        report = await here.until(states(a="absent", b="absent", c="ready"))

    assert refused == early == (409, "engines_busy", True)
    assert engine(report, "b").epoch == 1


async def test_a_load_that_is_withdrawn_leaves_what_runs_alone(
    settings: NodeSettings, room: Room, hold: Path
) -> None:
    room(1)
    async with ordered(settings) as here:
        await here.until(states(a="ready", b="absent", c="absent"))
        hold.touch()
        chat = asyncio.create_task(here.chat("a"))
        await here.until(states(a="busy", b="absent", c="absent"))
        await here.load("b", drain=True)
        await here.unload("b")
        report = await here.until(states(a="busy", b="absent", c="absent"))
        hold.unlink()
        await chat

    assert engine(report, "a").epoch == 1


async def test_without_on_demand_what_was_unloaded_loads_only_by_order(
    settings: NodeSettings,
) -> None:
    fixed = dataclasses.replace(settings, on_demand=False, keep_alive=0.0)
    async with ordered(fixed) as here:
        await here.until(states(a="ready", b="ready", c="ready"))
        await here.unload("a")
        report = await here.until(
            lambda report: states(b="ready", c="ready")(report) and report.available
        )
        await here.load("a")
        await here.until(states(a="ready", b="ready", c="ready"))

    assert [each.reason for each in report.available] == ["it was unloaded"]
