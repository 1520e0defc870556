"""Models of another program on a real node, behind a real balancer."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from balancer.app import running as a_balancer
from edgeserve.config.paths import admin_key_file
from edgeserve.config.settings import BalancerSettings, NodeSettings
from edgeserve.models.adopt import links
from edgeserve.models.adopt.stores import Store
from edgeserve.wire import NodeReport
from node.engines.process import free_port
from tests.fakes import stores
from tests.fakes.gguf import a_model
from tests.fakes.terminal import terminal
from tests.node.shelf.watched import ready, running
from tests.patience import PATIENCE


def adopt(home: Path, settings: NodeSettings) -> None:
    folder = settings.models_dir
    found = links.find(Store("ollama", home / ".ollama/models"), folder)
    (adoption,) = links.plan_links([found], folder, {})
    assert adoption.problems == ()
    assert links.adopt(adoption, folder) == []


async def test_a_model_of_ollama_is_served_where_it_lies(
    settings: NodeSettings, model: Path, tmp_path: Path
) -> None:
    blob = stores.ollama(tmp_path, model, "tiny:1b")
    async with running(settings) as here:
        await here.until(ready("old"))
        adopt(tmp_path, settings)
        await here.until(ready("old", "tiny-1b"))
        answer = await here.chat("tiny-1b")

    assert answer.endswith(b"data: [DONE]\n\n")
    assert blob.is_file()
    assert not blob.is_symlink()


async def test_what_ollama_replaces_restarts_and_what_it_deletes_goes_quietly(
    settings: NodeSettings, model: Path, tmp_path: Path
) -> None:
    stores.ollama(tmp_path, model, "tiny:1b")
    adopt(tmp_path, settings)
    other = a_model(tmp_path / "other.gguf", name="other")

    async with running(settings) as here:
        await here.until(ready("old", "tiny-1b"))
        blob = stores.ollama(tmp_path, other, "tiny:1b")
        adopt(tmp_path, settings)
        await here.until(lambda report: not ready("old", "tiny-1b")(report))
        await here.until(ready("old", "tiny-1b"))
        blob.unlink()
        gone = await here.until(ready("old"))
        problem = await here.until(lambda report: report.problems)
        answer = await here.chat("old")

    assert answer.endswith(b"data: [DONE]\n\n")
    assert gone.engines[0].epoch == 1
    assert f"leads to {blob}, which is gone" in problem.problems[0]


def old_is_ready(report: NodeReport) -> bool:
    return "ready" in {each.state for each in report.engines if each.model == "old"}


async def callable_there(client: aiohttp.ClientSession, name: str) -> bool:
    async with client.get(f"/v1/models/{name}") as answer:
        return answer.status == 200


async def test_rm_removes_what_is_not_used_and_refuses_what_is(
    settings: NodeSettings,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = BalancerSettings(
        port=free_port(),
        state_dir=tmp_path / "balancer",
        calibrate=False,
        discover=False,
    )
    url = f"http://127.0.0.1:{ours.port}"
    monkeypatch.setenv("EDGESERVE_BALANCER_STATE_DIR", str(ours.state_dir))
    edgeserve = terminal(capsys, monkeypatch)
    blob = stores.ollama(tmp_path, model, "tiny:1b")
    adopt(tmp_path, settings)
    link = settings.models_dir / "adopted/ollama/library/tiny/tiny-1b.gguf"
    named = dataclasses.replace(settings, models=("old",), balancers=(url,))
    async with (
        a_balancer(ours, say=lambda _: None),
        running(named) as here,
        aiohttp.ClientSession(url) as client,
    ):
        await here.until(old_is_ready)
        async with asyncio.timeout(PATIENCE):
            while not await callable_there(client, "old"):
                await asyncio.sleep(0.05)
        assert admin_key_file(ours.state_dir, ours.port).is_file()

        def rm(name: str, *more: str) -> Any:
            return asyncio.to_thread(
                edgeserve, "models", "rm", name, "--url", url, *more
            )

        async with client.post("/edgeserve/v1/models/old/remove", json={}) as page:
            assert page.status == 403
        used = await rm("old", "--yes")
        unsure = await rm("tiny-1b")
        assert os.path.lexists(link)
        path = str(link.relative_to(settings.models_dir))
        removed = await rm(path, "--yes", "--node", "kitchen")
        again = await rm("tiny-1b", "--yes")

    statuses = (used.status, unsure.status, removed.status, again.status)
    assert statuses == (1, 1, 0, 1), (used, unsure, removed, again)
    assert "`edgeserve models unload old:F16`" in used.err
    assert "--yes" in unsure.err
    assert "adopted/ollama/library/tiny/tiny-1b.gguf" in removed.out
    assert "no node has a file" in again.err
    assert not (settings.models_dir / "adopted").exists()
    assert (settings.models_dir / "old-F16.gguf").is_file()
    assert blob.is_file()
