"""An engine that takes more memory than it may is ended, and it is said why."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgeserve.config.settings import NodeSettings
from edgeserve.errors import NodeLost
from node.supervision import growth
from tests.fakes.engines import FakeEngine, a_spec, watching
from tests.patience import PATIENCE

GIB = 2**30


def test_the_limit_leaves_room_over_the_plan_and_over_what_a_start_took() -> None:
    spec = replace(a_spec(), memory=8 * GIB)

    assert growth.limit(spec, 0) == 10 * GIB
    assert growth.limit(spec, 12 * GIB) == 15 * GIB
    assert growth.limit(a_spec(), GIB) == 2 * GIB
    assert growth.limit(replace(spec, projector=Path("mm")), 0) == 12 * GIB


def test_what_ended_a_process_is_distinguished() -> None:
    assert growth.ended_by(-signal.SIGKILL, for_memory=False) == "killed"
    assert growth.ended_by(-signal.SIGKILL, for_memory=True) == "died"
    assert growth.ended_by(-signal.SIGSEGV, for_memory=False) == "died"
    assert growth.ended_by(3, for_memory=False) == "died"


def test_the_kernels_count_of_memory_shortages_is_read(tmp_path: Path) -> None:
    (tmp_path / "vmstat").write_text("pgfault 7\noom_kill 3\n")

    assert growth.kernel_kills(tmp_path / "vmstat") == 3
    assert growth.kernel_kills(tmp_path / "none") == 0


@pytest.fixture
def settings(tmp_path: Path) -> NodeSettings:
    return NodeSettings(state_dir=tmp_path, load_seconds=PATIENCE, stuck_seconds=600)


def the_engine() -> psutil.Process:
    """Return what runs now."""
    found = psutil.Process().children(recursive=True)
    fakes = (each for each in found if "tests.fakes.llama" in each.cmdline())
    return max(fakes, key=psutil.Process.create_time)


@pytest.fixture
def growing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a little more be too much."""
    monkeypatch.setattr("node.supervision.growth.GIB", 2**25)


@pytest.mark.usefixtures("growing")
async def test_an_engine_that_grows_is_ended_and_started_again(
    settings: NodeSettings,
) -> None:
    engine = FakeEngine(("--grows", "64"))
    async with watching(engine, a_spec(), settings) as (supervisor, watched):
        ready = await watched.until("ready")
        process = the_engine()
        assert 0 < process.memory_info().rss < ready.memory_limit
        with supervisor.claim():
            process.send_signal(signal.SIGUSR1)
            failed = await watched.until("failed")
        again = await watched.until("ready", epoch=2)

    assert failed.reason is not None
    assert "of memory, and its limit is" in failed.reason
    assert (failed.ended, again.ended) == ("died", "died")


async def test_requests_that_end_an_engine_do_not_put_it_into_quarantine(
    settings: NodeSettings,
) -> None:
    async with watching(FakeEngine(), a_spec(), settings) as (supervisor, watched):
        for epoch in range(1, 6):
            await watched.until("ready", epoch=epoch)
            with supervisor.claim():
                the_engine().send_signal(signal.SIGSEGV)
                async with asyncio.timeout(PATIENCE):
                    while supervisor.report.state in {"ready", "busy"}:
                        await asyncio.sleep(0.01)
            assert supervisor.report.ended == "died"

    assert "quarantined" not in watched.states


async def test_a_request_whose_connection_broke_first_counts_all_the_same(
    settings: NodeSettings,
) -> None:
    async with watching(FakeEngine(), a_spec(), settings) as (supervisor, watched):
        for epoch in range(1, 6):
            await watched.until("ready", epoch=epoch)
            with suppress(NodeLost), supervisor.claim():
                raise NodeLost("the engine hung up")
            assert supervisor.report.busy == 0
            the_engine().send_signal(signal.SIGABRT)
            await watched.until("failed", epoch=epoch)

    assert "quarantined" not in watched.states
