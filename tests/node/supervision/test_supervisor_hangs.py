"""Engines that get nowhere, and such as are merely slow."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.wire import Expected, Launch
from node.engines.base import EngineSpec
from tests.fakes.engines import FakeEngine, a_spec, watching
from tests.node.building import answer
from tests.patience import PATIENCE


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    return NodeSettings(state_dir=tmp_path, load_seconds=PATIENCE, stuck_seconds=600)


@pytest.fixture
def hasty(settings: NodeSettings) -> NodeSettings:
    """Let an engine be stuck after a second without progress."""
    return dataclasses.replace(settings, stuck_seconds=1)


async def stuck_and_restarted(spec: EngineSpec, settings: NodeSettings) -> str | None:
    """Have an engine stall at work; return why it was given up."""
    # The first generation is the supervisor's own; the second stalls.
    stalling = FakeEngine(("--fault", "stall", "--fault-skip", "1"))
    async with watching(stalling, spec, settings) as (supervisor, watched):
        await watched.until("ready")
        with supervisor.claim():
            asked = asyncio.create_task(answer(supervisor))
            stuck = await watched.until("stuck")
            with pytest.raises(Exception, match=r"hung up|did not answer|broke off"):
                await asked
            await watched.until("ready", epoch=2)
    return stuck.reason


async def test_a_busy_engine_without_progress_is_stuck_and_restarted(
    hasty: NodeSettings,
) -> None:
    assert await stuck_and_restarted(a_spec(), hasty) == "no progress for 1 s"


async def test_a_hung_decode_is_found_soon_where_calls_should_be_short(
    settings: NodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.supervision.liveness.SHORTEST_SECONDS", 1.0)
    launch = Launch(slots=2, context=2048, batch=1, threads=2)
    spec = a_spec(launch=launch, expected=Expected(read=100, write=100))

    assert await stuck_and_restarted(spec, settings) == "no progress for 1 s"


async def test_a_slow_machine_that_reads_is_not_a_hung_one(
    settings: NodeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.supervision.liveness.SHORTEST_SECONDS", 0.2)
    slow = FakeEngine(("--prefill", "2", "--batch", "1"))
    launch = Launch(slots=2, context=2048, batch=1, threads=2)
    spec = a_spec(launch=launch, expected=Expected(read=2, write=100))
    async with watching(slow, spec, settings) as (supervisor, watched):
        await watched.until("ready")
        with supervisor.claim():
            # Half a second for each word, in which no counter moves.
            assert await answer(supervisor, prompt="one two three four") == 200

    assert "stuck" not in watched.states


async def test_a_slow_engine_is_not_a_stuck_one(settings: NodeSettings) -> None:
    slow = FakeEngine(("--decode", "5", "--fault-skip", "1"))
    hasty = dataclasses.replace(settings, stuck_seconds=2)
    async with watching(slow, a_spec(), hasty) as (supervisor, watched):
        await watched.until("ready")
        with supervisor.claim():
            assert await answer(supervisor, tokens=15) == 200  # three seconds' work

    assert "stuck" not in watched.states


async def test_a_claim_without_work_at_the_engine_is_not_stuck(
    hasty: NodeSettings,
) -> None:
    # A client that sends its body slowly holds a slot; the engine knows nothing yet.
    async with watching(FakeEngine(), a_spec(), hasty) as (supervisor, watched):
        await watched.until("ready")
        with supervisor.claim():
            await asyncio.sleep(1.5)

    assert "stuck" not in watched.states
