from __future__ import annotations

import asyncio
import dataclasses
import shutil
from pathlib import Path

import aiohttp

from balancer.app import running as a_balancer
from edgeserve.config.settings import BalancerSettings, NodeSettings
from node.engines.process import free_port
from tests.node.shelf.watched import CHAT, Watched, ready, running


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


async def test_behind_a_balancer_requests_outlive_their_files(
    settings: NodeSettings, folder: Path, model: Path, tmp_path: Path
) -> None:
    ours = BalancerSettings(port=free_port(), state_dir=tmp_path / "balancer")
    url = f"http://127.0.0.1:{ours.port}"
    hold = tmp_path / "hold"
    async with (
        a_balancer(ours, say=lambda _: None),
        running(dataclasses.replace(settings, balancers=(url,))) as here,
        aiohttp.ClientSession(url) as client,
    ):
        there = Watched(client)
        await here.until(ready("old"))
        shutil.copy(model, folder)
        await here.until(ready("old", "new"))
        await there.until_listed("new", "old")
        hold.touch()
        chats = [asyncio.create_task(there.chat(name)) for name in ("old", "new")]
        await here.until(
            lambda report: {each.state for each in report.engines} == {"busy"}
        )
        (folder / "new-F16.gguf").unlink()
        shutil.copy(model, folder / ".part")
        (folder / ".part").replace(folder / "old-F16.gguf")
        await here.until(
            lambda report: [each.state for each in report.engines] == ["loading"]
        )
        await there.until_listed()  # nothing can take a request now
        hold.unlink()
        answers = await asyncio.gather(*chats)
        again = await there.chat("old")

    for answer in (*answers, again):
        assert answer.endswith(b"data: [DONE]\n\n")
        assert b"error" not in answer
