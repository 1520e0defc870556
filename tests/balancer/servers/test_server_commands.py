"""The commands for servers, as processes, against a whole balancer."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.balancer.endpoint import CHAT, Endpoint, a_secret, chat, endpoint
from tests.fakes.servers import OPENAI, VLLM, fake_server
from tests.patience import PATIENCE

KEY = "a-key-that-is-nowhere-to-be-seen"


async def edgeserve(here: Endpoint, folder: Path, *words: str) -> tuple[int, str]:
    """Run a command on the balancer's machine; return its status and its output."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "edgeserve", "servers", *words),
        *("--url", here.balancer.origin.url),
        env={**os.environ, "EDGESERVE_STATE_DIR": str(folder), "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_a_server_is_added_with_its_key_listed_and_removed(
    tmp_path: Path,
) -> None:
    key = str(a_secret(tmp_path, "key", KEY))
    async with (
        fake_server(VLLM, key=KEY) as server,
        endpoint(state_dir=tmp_path) as here,
    ):
        locked = await edgeserve(here, tmp_path, "add", server.url)
        words = ("add", server.url, "--key-file", key, "--name", "gpu")
        added = await edgeserve(here, tmp_path, *words)
        answer = await here.post(CHAT, chat())
        listed = await edgeserve(here, tmp_path, "list", "--json")
        removed = await edgeserve(here, tmp_path, "rm", server.url)
        none = await edgeserve(here, tmp_path, "list")

    assert locked[0] == 1
    assert "name the file with its key, with --key-file or as `key_file`" in locked[1]
    assert added[0] == 0
    assert "Qwen/Small: 2048 tokens; chat, completion, tools" in added[1]
    assert answer.status == 200
    (shown,) = json.loads(listed[1])
    assert (shown["name"], shown["key"], shown["from"]) == ("gpu", True, "added")
    assert removed == (0, "gpu gets no requests any more\n")
    assert none == (0, "no servers yet; `edgeserve servers add URL` adds one\n")
    assert all(KEY not in each[1] for each in (locked, added, listed, removed, none))


async def test_a_key_that_the_server_refuses_and_repeats_is_not_shown(
    tmp_path: Path,
) -> None:
    key = str(a_secret(tmp_path, "key", KEY))
    locked = (401, {"error": f"unknown key {KEY}"})
    async with (
        fake_server({"/v1/models": locked}) as server,
        endpoint(state_dir=tmp_path) as here,
    ):
        refused = await edgeserve(here, tmp_path, "add", server.url, "--key-file", key)

    assert refused[0] == 1
    assert "401: it refuses the key that it gets; name a file with" in refused[1]
    assert KEY not in refused[1]


async def test_a_context_that_nobody_told_is_called_unknown(tmp_path: Path) -> None:
    async with (
        fake_server(OPENAI) as server,
        endpoint(state_dir=tmp_path) as here,
    ):
        added = await edgeserve(here, tmp_path, "add", server.url)

    assert "context unknown; chat, completion, tools" in added[1]
    assert " 0 tokens" not in added[1]
