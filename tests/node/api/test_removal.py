from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgeserve.http import Origin, bind, listen, upstream
from edgeserve.openai import ROUTES
from edgeserve.orders.removal import REMOVE
from edgeserve.security.tokens import Guard
from edgeserve.wire import EngineState
from node.api.inference import InferenceHandler
from node.api.removal import removal_routes
from node.caches.store import StateStore
from node.state import NodeState
from tests.fakes.gguf import a_model
from tests.node.building import PretendSupervisor, a_node, an_engine


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return a_model(tmp_path / "tiny-F16.gguf")


@asynccontextmanager
async def serving(
    state: NodeState, folder: Path, *tokens: str
) -> AsyncGenerator[aiohttp.ClientSession]:
    guard = Guard(tokens, "the fleet token is")
    async with (
        upstream(connect_seconds=30) as ask,
        listen(
            bind("127.0.0.1", 0),
            InferenceHandler(state, ask, guard),
            ROUTES.__contains__,
            removal_routes(state, folder, guard, StateStore(folder / "caches", 0)),
            body_limit=2**20,
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def answered(client: aiohttp.ClientSession, **body: Any) -> tuple[int, Any]:
    async with client.post(REMOVE, json=body) as answer:
        return answer.status, await answer.json()


def an_engine_that_is(state: EngineState, variant: str = "tiny:F16") -> NodeState:
    supervisor = PretendSupervisor(an_engine(variant), Origin("127.0.0.1", 9))
    supervisor.state = state
    return a_node(supervisor)


@pytest.mark.parametrize("engine", ["ready", "busy", "loading", "leaving", "failed"])
async def test_a_model_in_use_is_refused_and_stays(
    engine: EngineState, file: Path
) -> None:
    async with serving(an_engine_that_is(engine), file.parent) as client:
        status, said = await answered(client, model="tiny")

    assert (status, said["error"]["code"]) == (409, "model_in_use")
    assert "models unload tiny:F16" in said["error"]["message"]
    assert file.exists()


@pytest.mark.parametrize("engine", ["absent", "quarantined"])
async def test_a_model_without_a_process_is_removed(
    engine: EngineState, file: Path
) -> None:
    async with serving(an_engine_that_is(engine), file.parent) as client:
        status, said = await answered(client, model="tiny")

    assert (status, said["variants"]) == (200, ["tiny:F16"])
    assert not file.exists()


async def test_an_engine_that_leaves_unreported_still_has_its_file(file: Path) -> None:
    state = an_engine_that_is("ready")
    state.leaving, state.supervisors = state.supervisors, []
    async with serving(state, file.parent) as client:
        status, _ = await answered(client, model="tiny")

    assert status == 409


async def test_a_preview_removes_nothing(file: Path) -> None:
    async with serving(a_node(), file.parent) as client:
        status, said = await answered(client, model="tiny", preview=True)

    size = file.stat().st_size
    assert status == 200
    assert said["files"] == [{"path": file.name, "bytes": size, "target": ""}]


async def test_only_the_fleet_may_remove(file: Path) -> None:
    async with serving(a_node(), file.parent, "token-of-the-fleet") as client:
        status, _ = await answered(client, model="tiny")

    assert status == 401
    assert file.exists()
