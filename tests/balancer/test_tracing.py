from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from balancer.simulate.commands import simulate
from balancer.simulate.policies import POLICIES
from balancer.simulate.trace import load
from edgeserve.errors import SettingsError
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.llama import Behaviour
from tests.fakes.node import fake_node

SECRET = "the secret recipe " * 20


def turn(role: str, words: str) -> dict[str, str]:
    return {"role": role, "content": words}


async def recorded(path: Path, *bodies: dict[str, Any]) -> None:
    async with (
        fake_node("pi", Behaviour(decode=1000)) as node,
        endpoint(node, record=path) as balancer,
    ):
        for body in bodies:
            await balancer.post(CHAT, body)


async def test_a_trace_tells_sizes_and_who_continues_whom_but_no_content(
    tmp_path: Path,
) -> None:
    path = tmp_path / "day.jsonl"
    first = [turn("user", SECRET)]
    second = [*first, turn("assistant", "w0 w1"), turn("user", "and then?")]

    await recorded(
        path,
        {**chat(max_tokens=2), "messages": first},
        {**chat(max_tokens=3, stream=True), "messages": second},
        chat(model="huge"),
    )

    one, two = load(path)
    assert (one.after, two.after) == (None, one.id)
    assert (one.answer_tokens, two.answer_tokens) == (2, 3)
    assert one.prompt_tokens == 1 + 3 * 20 + 2
    assert (one.budget, one.model) == (2, "small")
    assert one.prompt.size > len(SECRET)
    assert two.prompt.blocks[: len(one.prompt.blocks)] == one.prompt.blocks
    assert b"recipe" not in path.read_bytes()
    assert b"127.0.0.1" not in path.read_bytes()


async def test_a_trace_goes_on_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"

    await recorded(path, chat("one"))
    await recorded(path, chat("two"))

    assert [call.id for call in load(path)] == [0, 1]


async def test_what_was_recorded_can_be_replayed_on_any_fleet(tmp_path: Path) -> None:
    path, fleet = tmp_path / "day.jsonl", tmp_path / "mine.toml"
    await recorded(path, chat("one"), chat("two"))
    fleet.write_text('[[machine]]\nname = "pi"\nprefill = 20\ndecode = 5\ncount = 2\n')

    asked = ["--fleet", str(fleet), "--trace", str(path), "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, simulate, asked)

    assert result.exit_code == 0, result.output
    assert result.stderr == "note: machines without a `model` serve 'small'\n"
    rows = json.loads(result.stdout)
    assert {row["policy"]: row["calls"] for row in rows} == dict.fromkeys(POLICIES, 2)


async def test_a_file_that_is_no_trace_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "diary.txt"
    path.write_text("dear diary")

    with pytest.raises(SettingsError, match="not a trace"):
        await recorded(path)

    assert path.read_text() == "dear diary"
