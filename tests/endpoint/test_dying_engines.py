"""Real engines die and freeze under load, in the midst of their answers.

The short version of `make faults`; its counts are printed.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from pathlib import Path

import aiohttp
import pytest

from tests.endpoint.faults.answers import questions
from tests.endpoint.faults.campaign import struck, table, undisturbed
from tests.endpoint.faults.pair import Pair, a_pair

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

HITS = 3
"""As many streams as an engine is in the midst of: mostly, one fault suffices."""
SECONDS = 60.0
"""After so long without as many hits, what was hit has to do."""


@pytest.fixture(scope="module")
def pair(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    with a_pair(smollm2, tmp_path_factory.mktemp("pair")) as running:
        yield running


@pytest.mark.parametrize("deed", [signal.SIGKILL, signal.SIGSTOP])
async def test_no_answer_is_lost_or_torn_with_its_engine(
    pair: Pair, deed: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    async with aiohttp.ClientSession(pair.url) as session:
        await pair.serve(session)
        expected = await undisturbed(session, questions()[:8])
        found = await struck(pair, session, deed, expected, hits=HITS, seconds=SECONDS)

    with capsys.disabled():
        print("\n" + table([found]))
    assert [(each.wrong, each.attempts) for each in found.failed] == []
    assert found.torn == []
    assert found.starts == found.faults, "a slow engine was taken for a dead one"
    assert found.hit or found.moved
