"""Pull, copy and delete by Ollama's client: for admins, through the usual orders."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ollama
import pytest

from tests.balancer.api.models.ruled import Ruled, engine, ruled

REPOSITORY = "hf.co/Org/Tiny-GGUF:Q4_1"


@asynccontextmanager
async def admin(tmp_path: Path) -> AsyncGenerator[tuple[ollama.AsyncClient, Ruled]]:
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        url = fleet.endpoint.balancer.origin.url
        key = {"authorization": f"Bearer {fleet.key}"}
        async with ollama.AsyncClient(url, headers=key) as client:
            yield client, fleet


async def test_a_copy_is_another_name_that_can_be_deleted(tmp_path: Path) -> None:
    async with admin(tmp_path) as (client, fleet):
        await client.copy("small:latest", "mine")
        await client.copy("mine", "yours:latest")
        names = {each.model for each in (await client.list()).models}
        answer = await client.chat("yours", [{"role": "user", "content": "hi"}])
        await client.delete("mine")
        left = {each.model for each in (await client.list()).models}
        with pytest.raises(ollama.ResponseError, match="huge"):
            await client.copy("huge", "other")

    assert names == {"small:latest", "mine:latest", "yours:latest"}
    assert answer.message.content
    assert left == names - {"mine:latest"}
    assert fleet.nodes["pi"].files.removed == []


async def test_deleting_a_model_removes_its_files(tmp_path: Path) -> None:
    async with admin(tmp_path) as (client, fleet):
        await client.delete("small:latest")

    assert fleet.nodes["pi"].files.removed == ["small"]


async def test_a_pull_tells_how_far_it_is_and_can_be_called_by_its_name(
    tmp_path: Path,
) -> None:
    async with admin(tmp_path) as (client, fleet):
        files, lines = fleet.nodes["pi"].files, list[Any]()
        steps = [
            {"state": "fetching", "file": "a.gguf", "done": 3, "total": 9},
            {"state": "done", "file": "a.gguf", "done": 9, "total": 9},
        ]
        async for line in await client.pull(REPOSITORY, stream=True):
            lines.append(line)
            if len(lines) in {2, 3}:
                path = "small-Q4_1.gguf" if len(lines) == 3 else ""
                files.pulls(**steps[len(lines) - 2], path=path)
        routes = fleet.endpoint.balancer.state.routes.by_name

    assert [each.status for each in lines] == [
        *("pulling manifest",) * 2,
        *("pulling a.gguf",) * 2,
        "success",
    ]
    assert [(each.completed, each.total) for each in lines[2:4]] == [(3, 9), (9, 9)]
    assert files.ordered[0].source == REPOSITORY
    assert routes["hf.co/org/tiny-gguf:Q4_1"].models == ("small-q4_1",)


async def test_a_pull_that_fails_says_why_in_both_forms(tmp_path: Path) -> None:
    async with admin(tmp_path) as (client, fleet):
        files = fleet.nodes["pi"].files

        async def pulled() -> None:
            async for _ in await client.pull(REPOSITORY, stream=True):
                if files.ordered:
                    files.pulls(state="failed", problem="the disk is full")

        with pytest.raises(ollama.ResponseError, match="disk is full"):
            await pulled()
        with pytest.raises(ollama.ResponseError, match="disk is full"):
            await client.pull(REPOSITORY)


async def test_what_is_here_is_not_fetched(tmp_path: Path) -> None:
    async with admin(tmp_path) as (client, fleet):
        answer = await client.pull("small:latest")

    assert answer.status == "success"
    assert fleet.nodes["pi"].files.ordered == []


async def test_changes_need_an_admins_key(tmp_path: Path) -> None:
    async with ruled(tmp_path, pi=engine("ready")) as fleet:
        post = fleet.endpoint.post
        pulled = await post("/api/pull", {"model": "a/b"})
        copied = await post("/api/copy", {"source": "small", "destination": "b"})
        delete = fleet.endpoint.session.delete("/api/delete", json={"model": "small"})
        async with delete as deleted:
            assert deleted.status == pulled.status == copied.status == 403
