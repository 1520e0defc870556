"""`--resume any` and `--resume off`: real engines die in the midst of answers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Generator
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.endpoint.conftest import running_process
from tests.endpoint.faults.answers import Answer, Question, asked
from tests.endpoint.faults.pair import Node, Pair
from tests.native import engine_flags
from tests.patience import PATIENCE

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

WORDS = "Count from one to one hundred in words."
STREAMED, WHOLE = Question(WORDS, 96), Question(WORDS, 96, streams=False)


@pytest.fixture(scope="module")
def pairs(
    smollm2: Path, second_variant: Path, tmp_path_factory: pytest.TempPathFactory
) -> Generator[dict[str, Pair]]:
    """Two nodes, each with a variant of its own, behind a balancer for each policy."""
    home = tmp_path_factory.mktemp("policies")
    nodes: dict[str, Node] = {}
    found: dict[str, Pair] = {}
    with ExitStack() as stack:
        flags = ["--no-discover", "--no-calibrate", "--no-owner-first"]
        for name, model in (("left", smollm2), ("right", second_variant)):
            url, pid = stack.enter_context(
                running_process(
                    "node",
                    *("--model", str(model), "--name", name, "--no-advertise"),
                    *("--slots", "2", "--context", "1024", "--threads", "1"),
                    "--no-on-demand",
                    *engine_flags(),
                    home=home / name,
                )
            )
            nodes[name] = Node(psutil.Process(pid), model)
            flags += ["--node", url]
        for policy in ("any", "off"):
            url, _ = stack.enter_context(
                running_process(
                    "balancer", *flags, "--resume", policy, home=home / policy
                )
            )
            found[policy] = Pair(url, nodes)
        yield found


async def broken_off(pairs: dict[str, Pair], policy: str, question: Question) -> Answer:
    """Ask, kill the engine that answers once it has begun, and wait for the rest.

    In the end both balancers know that it serves again.
    """
    pair = pairs[policy]
    async with aiohttp.ClientSession(pair.url) as session, asyncio.timeout(PATIENCE):
        await pair.serve(session)
        answer = Answer(question)
        asking = asyncio.create_task(asked(session, answer))
        if question.streams:
            await answer.begun.wait()
            name = answer.node
        else:
            name = await _writing(pair, session)
        epoch = await pair.epoch(session, name)
        pair.strike(name, signal.SIGKILL)
        await asking
    for each in pairs.values():
        async with aiohttp.ClientSession(each.url) as session:
            await each.serve(session, **{name: epoch + 1})
    return answer


async def _writing(pair: Pair, session: aiohttp.ClientSession) -> str:
    """Wait until the request is at work, and name its node; probes do not count."""
    while True:
        async with session.get("/edgeserve/v1/requests") as response:
            latest = await response.json()
        engines = await pair.engines(session)
        for attempt in latest[0]["attempts"] if latest else ():
            if attempt["outcome"] is None and engines[attempt["node"]]["busy"]:
                name: str = attempt["node"]
                return name
        await asyncio.sleep(0.01)


async def test_any_lets_another_variant_go_on(pairs: dict[str, Pair]) -> None:
    answer = await broken_off(pairs, "any", STREAMED)

    broken, onward = answer.attempts
    assert answer.wrong == ""
    assert broken["outcome"].startswith("broke off")
    assert onward["resumes"]
    assert broken["variant"] != onward["variant"]


async def test_off_lets_a_stream_end_in_an_error_that_says_so(
    pairs: dict[str, Pair],
) -> None:
    answer = await broken_off(pairs, "off", STREAMED)

    assert answer.text
    assert "`resume` is off" in answer.events[-1]["error"]["message"]
    assert answer.done == 0
    assert len(answer.attempts) == 1


@pytest.mark.parametrize("policy", ["any", "off"])
async def test_without_streaming_there_is_an_answer_all_the_same(
    policy: str, pairs: dict[str, Pair]
) -> None:
    answer = await broken_off(pairs, policy, WHOLE)

    assert answer.wrong == ""
    assert len(answer.attempts) == 2
