"""More models than memory: real engines on two machines load what is asked for."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeserve.http.sse import EventReader
from edgeserve.models.synthetic import Shape, a_model
from tests.fleet.asking import Client, Got, client
from tests.fleet.fleet import SECONDS, Fleet, Process, answer, fleet

pytestmark = pytest.mark.engine

SMALL = Shape(embedding=512, feed_forward=1024, layers=24, context=1024)
SMOLLM = "smollm2-135m-instruct"
ROOM_MIB = 300
"""Room for one engine of any of the three models, and for no two."""

FLAGS = ("--engine", "bundled", "--threads", "1", "--slots", "2", "--context", "1024")

Json = dict[str, Any]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> dict[str, Path]:
    """Three models, by name."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "alpha": a_model(folder / "alpha-F16.gguf", SMALL, name="alpha"),
        "beta": a_model(folder / "beta-F16.gguf", SMALL, name="beta"),
        SMOLLM: smollm2,
    }


def node(
    made: Fleet, host: str, files: Iterable[Path], *flags: str, room: int = ROOM_MIB
) -> Process:
    """Start a node with these files in its models folder, and room for one engine."""
    folder = made.folder / f"{host}-models"
    folder.mkdir()
    for each in files:
        shutil.copyfile(each, folder / each.name)
    where = ("--models-dir", str(folder), "--memory-mib", str(room))
    machine = made.network.host(host)
    return made.node(machine, "--name", host, *FLAGS, *where, *flags)


@asynccontextmanager
async def asked(made: Fleet, name: str = "balancer") -> AsyncGenerator[Client]:
    """Start a balancer on a machine of its own, and ask it."""
    balancer = made.balancer(made.network.host(name))
    async with client(made, balancer) as ask:
        yield ask


async def knows(ask: Client, *models: str) -> None:
    """Wait until these models can be called."""

    async def listed() -> set[str]:
        async with ask.session.get("/v1/models") as found:
            return {each["id"] for each in (await found.json())["data"]}

    await answer(listed, set(models).issubset, f"{models} can be called")


async def events(ask: Client, kind: str) -> list[Json]:
    """Return the balancer's events of one kind: its stream begins with the latest."""
    reader = EventReader()
    async with ask.session.get("/edgeserve/v1/events") as found:
        piece = await found.content.readany()
    news = [json.loads(each.data) for each in reader.feed(piece) if each.data]
    return [each for each in news if each["kind"] == kind]


async def stream(ask: Client, model: str, tokens: int = 4) -> Got:
    got = Got()
    await ask.stream(got, model, tokens)
    return got


async def test_a_model_that_is_on_a_disk_only_answers_on_the_machine_that_has_it(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with fleet(tmp_path) as made:
        node(made, "left", [files["alpha"], files["beta"]])
        node(made, "right", [files[SMOLLM]])
        async with asked(made) as ask:
            await knows(ask, "alpha", "beta", SMOLLM)
            async with asyncio.timeout(SECONDS):
                answers = [
                    await stream(ask, each) for each in ("alpha", "beta", SMOLLM)
                ]

    assert [each for each in answers if not each.whole] == []


async def test_fifty_clients_of_one_cold_model_make_one_load(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with fleet(tmp_path) as made:
        node(
            made, "left", [files["alpha"], files["beta"]], "--model", "alpha", room=900
        )
        async with asked(made) as ask:
            await knows(ask, "alpha", "beta")
            async with asyncio.timeout(SECONDS):
                answers = await asyncio.gather(
                    *(stream(ask, "beta") for _ in range(50))
                )
            loads = await events(ask, "load_ordered")

    assert [each for each in answers if not each.whole] == []
    assert len(loads) == 1


async def test_two_models_that_take_turns_in_one_memory_are_loaded_few_times(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with fleet(tmp_path) as made:
        node(made, "left", [files["alpha"], files["beta"]])
        async with asked(made) as ask:
            await knows(ask, "alpha", "beta")
            turns = ["alpha", "beta"] * 20
            async with asyncio.timeout(SECONDS):
                answers = await asyncio.gather(*(stream(ask, each) for each in turns))
            loads = await events(ask, "load_ordered")

    assert [each for each in answers if not each.whole] == []
    assert len(loads) <= 2


async def test_a_machine_that_is_lost_while_it_loads_is_stood_in_for(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with fleet(tmp_path) as made:
        nodes = {each: node(made, each, files.values()) for each in ("left", "right")}
        async with asked(made) as ask:
            await knows(ask, *files)
            await answer(
                ask.nodes, lambda found: set(found) == set(nodes), "two machines"
            )
            request = asyncio.create_task(stream(ask, "alpha"))
            loading = await answer(
                lambda: events(ask, "load_ordered"), bool, "a load is ordered"
            )
            nodes[loading[0]["node"]].kill()
            async with asyncio.timeout(SECONDS):
                got = await request

    assert got.whole


async def test_two_balancers_that_want_different_models_of_one_machine_get_both(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with fleet(tmp_path) as made:
        node(made, "left", [files["alpha"], files["beta"]])
        async with asked(made, "first") as first, asked(made, "second") as second:
            await knows(first, "alpha", "beta")
            await knows(second, "alpha", "beta")
            async with asyncio.timeout(SECONDS):
                answers = await asyncio.gather(
                    *(stream(first, "alpha") for _ in range(5)),
                    *(stream(second, "beta") for _ in range(5)),
                )

    assert [each for each in answers if not each.whole] == []


async def test_a_pinned_model_is_not_evicted(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with fleet(tmp_path) as made:
        node(made, "left", [files["alpha"], files["beta"]], "--model", "alpha")
        async with asked(made) as ask:
            await knows(ask, "alpha")
            refused = await stream(ask, "beta")
            got = await stream(ask, "alpha")

    assert refused.status == 404
    assert b"is on left, but" in refused.body
    assert got.whole


async def test_a_file_that_arrives_can_be_called_and_one_that_goes_cannot(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    with fleet(tmp_path) as made:
        process = node(made, "left", [files["alpha"]])
        folder = made.folder / "left-models"
        async with asked(made) as ask:
            await knows(ask, "alpha")
            part = folder / ".beta.part"
            shutil.copyfile(files["beta"], part)
            part.replace(folder / files["beta"].name)
            await knows(ask, "beta")
            got = await stream(ask, "beta")

    assert got.whole, process.log
