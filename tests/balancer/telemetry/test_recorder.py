from __future__ import annotations

import asyncio
import json
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from balancer.simulate.commands import simulate
from balancer.simulate.compare import POLICIES
from balancer.telemetry.recorder import Trace
from balancer.telemetry.trace import load
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


async def test_a_trace_has_sizes_and_which_call_continues_which_but_no_content(
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


LINE = b'{"id":0,"at":1.5,"tokens":3,"answer":1,"blocks":"","ends":[],"messages":[]}\n'


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (b"", 0),
        (b"\n", 0),
        (LINE[:40], 0),
        (LINE[:3], 0),
        (LINE + LINE[:40], 1),
        (LINE[:30] + b"\n" + LINE + b"\xff\xfe\n", 1),
        (LINE + b"\0" * 4096, 1),
        (b"\0" * 4096, 0),
        (LINE + b"[" * 100_000 + b"\n", 1),
        (b"[]\n" + LINE, 1),
    ],
    ids=["empty", "blank", "cut", "early cut", "cut last", "no text", "zeros last",
         "zeros", "deep", "wrong type"],
)  # fmt: skip
async def test_a_damaged_trace_is_continued(
    tmp_path: Path, damage: bytes, kept: int
) -> None:
    path = tmp_path / "day.jsonl"
    path.write_bytes(damage)

    await recorded(path, chat("one"))

    assert path.read_bytes().startswith(damage)
    assert [call.id for call in load(path)] == list(range(kept + 1))


async def test_a_trace_without_a_request_does_not_bar_the_next_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "day.jsonl"

    await recorded(path)
    await recorded(path, chat("one"))

    assert len(load(path)) == 1


async def test_a_full_disk_costs_lines_and_no_requests(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        fake_node("pi", Behaviour(decode=1000)) as node,
        endpoint(node, record=Path("/dev/full")) as balancer,
    ):
        answers = [await balancer.post(CHAT, chat()) for _ in range(3)]

    assert [each.status for each in answers] == [200] * 3
    said = [each.getMessage() for each in caplog.records if "trace" in each.msg]
    assert said == ["cannot write to the trace: No space left on device"]


async def test_a_cut_line_is_ended_before_the_next_begins(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    with path.open("ab", buffering=0) as file:
        short = ShortOnce(file)
        trace = Trace(short, b"key", began=0.0, count=0)  # type: ignore[arg-type]
        trace.append(LINE)
        trace.append(LINE)

    assert path.read_bytes() == LINE[:20] + b"\n" + LINE


class ShortOnce:
    """A disk that takes a part of the first line, as one that is nearly full does."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.most = 20

    def write(self, data: bytes) -> int:
        data, self.most = data[: self.most], len(data) + 100
        return self.file.write(data)


def test_a_call_whose_predecessor_is_lost_comes_by_itself(tmp_path: Path) -> None:
    path = tmp_path / "day.jsonl"
    orphan = LINE.replace(b'"id":0,"at":1.5', b'"id":7,"at":0.5,"after":3')
    path.write_bytes(LINE + b"{cut\n" + orphan)

    one, two = load(path)

    assert (one.after, one.at, two.after, two.at) == (None, 1.5, None, 1.5)
