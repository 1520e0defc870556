"""The only engine dies, or hangs: its clients wait until it was started anew."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Generator
from pathlib import Path

import aiohttp
import pytest

from tests.endpoint.faults.answers import Answer, Question, asked
from tests.endpoint.faults.hang import NotAllowed, hang
from tests.endpoint.faults.judge import judged
from tests.endpoint.faults.pair import Pair, a_pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

NAME = "only"
WORDS = "Count from one to one hundred in words."


@pytest.fixture(scope="module")
def alone(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    home = tmp_path_factory.mktemp("alone")
    with a_pair(smollm2, home, "--batch", "32", names=[NAME]) as running:
        yield running


async def test_what_it_was_asked_is_answered_once_it_is_back(alone: Pair) -> None:
    whole, streamed = Question(WORDS, 96, streams=False), Question(WORDS, 96)
    async with aiohttp.ClientSession(alone.url) as session:
        await alone.serve(session)
        expected = await asked(session, Answer(streamed))

        answers = [Answer(streamed), Answer(whole)]
        asking = [asyncio.create_task(asked(session, each)) for each in answers]
        async with asyncio.timeout(120):
            await answers[0].begun.wait()
            alone.strike(NAME, signal.SIGKILL)
            answers.append(await asked(session, Answer(Question(WORDS, 16))))
            await asyncio.gather(*asking)

        assert [each.wrong for each in answers] == ["", "", ""]
        assert answers[0].breaks == 1
        for each in answers[:2]:
            if each.text != expected.text:
                assert not (await judged(session, each, expected.text)).at


async def test_the_second_of_two_answers_is_not_cut_without_an_error(
    alone: Pair,
) -> None:
    two = {"prompt": ["1, 2, 3, 4, 5", "The lighthouse"], "stop": [", 7"]}
    rest = {"max_tokens": 400, "ignore_eos": True, "temperature": 0, "stream": True}
    async with aiohttp.ClientSession(alone.url) as session:
        await alone.serve(session)
        async with session.post("/v1/completions", json={**two, **rest}) as response:
            told = b""
            async for piece in response.content.iter_any():
                told += piece
                if b'"finish_reason":"stop"' in told:
                    alone.strike(NAME, signal.SIGKILL)
                    break
            told += await response.read()

    last = json.loads(told.rstrip().rpartition(b"data: ")[2])
    assert "several" in last["error"]["message"]
    assert b"[DONE]" not in told
    assert b"prompt_progress" not in told


async def test_a_decode_that_hangs_is_found_and_goes_on_in_another_process(
    alone: Pair,
) -> None:
    async with aiohttp.ClientSession(alone.url) as session:
        await alone.serve(session)
        epoch = await alone.epoch(session, NAME)
        answer = Answer(Question(WORDS, 160))
        asking = asyncio.create_task(asked(session, answer))
        async with asyncio.timeout(100):
            await answer.begun.wait()
            try:
                hang(alone.nodes[NAME].engine, 100)
            except NotAllowed as error:
                pytest.skip(f"no thread can be stopped here: {error}")
            began = asyncio.get_running_loop().time()
            await alone.serve(session, **{NAME: epoch + 1})
            took = asyncio.get_running_loop().time() - began
            await asking

    assert answer.wrong == ""
    assert answer.breaks == 1
    assert took < 60, "`stuck_seconds` are twice as many"
