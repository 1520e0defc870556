"""Parts of the benchmark on real engines that can be held to something."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from tests.bench.asking import CUT_OFF, Answer, Messages
from tests.bench.fleet.contest import Attempt, Load, Run
from tests.bench.fleet.figures import beside, figures, merged, predictions
from tests.bench.fleet.loads import arrivals, burst, dice_of
from tests.bench.fleet.throttle import Cgroup, in_turns
from tests.patience import PATIENCE


def a_run(
    first: Sequence[float],
    *,
    contestant: str = "EdgeServe",
    cached: int = 0,
    attempts: Sequence[Attempt] = (),
) -> Run:
    timings = {"cache_n": float(cached), "prompt_n": 100.0 - cached}
    answers = [Answer(0.0, s, s + 1, timings=timings, node="fast") for s in first]
    return Run(contestant, "chats", 1, 0.0, 9.0, answers, {"fast": 2.0}, [*attempts])


def test_seeds_merge_into_a_geometric_mean() -> None:
    seeds = [figures(a_run([seconds])) for seconds in (1.0, 4.0)]

    assert merged(seeds).mean == pytest.approx(2.0)
    assert merged(seeds).requests == 2


def test_a_ratio_above_one_is_better_for_times_and_for_the_cache() -> None:
    ours = figures(a_run([1.0], cached=60))
    theirs = figures(a_run([3.0], contestant="nginx", cached=30))

    ratios = {each.figure: each.ratio for each in beside([ours, theirs])}
    assert ratios["mean"] == pytest.approx(3.0)
    assert ratios["cached"] == pytest.approx(2.0)


def test_errors_of_predictions_are_split_after_a_minute() -> None:
    tried = [
        Attempt(at, "fast", predicted, 2.0, "answered", 0)
        for at, predicted in ((1.0, 1.0), (59.0, 1.0), (61.0, 2.2))
    ]

    [(_, early, late)] = predictions([a_run([2.0], attempts=tried)])
    assert (early.count, early.p50) == (2, 0.5)
    assert late.count == 1
    assert late.p50 == pytest.approx(0.1)


def test_what_was_cut_off_counts_as_it_stood() -> None:
    waiting = Answer(10.0)
    waiting.cut_off(85.0)

    assert (waiting.first, waiting.whole, waiting.error) == (75.0, 75.0, CUT_OFF)


async def asked_by(load: Load, seed: int) -> list[str]:
    """Return what a load asks, of an engine that says nothing at once."""
    found: list[str] = []

    async def ask(messages: Messages, tokens: int) -> Answer:
        found.append(f"{tokens} {messages}")
        await asyncio.sleep(0)
        return Answer(0.0)

    await load(ask, seed)
    return found


async def test_all_contestants_are_asked_the_same() -> None:
    cold, warm = burst("cold"), burst("warm")

    assert await asked_by(cold, 1) == await asked_by(cold, 1)
    assert await asked_by(cold, 1) != await asked_by(cold, 2)
    assert not set(await asked_by(cold, 1)) & set(await asked_by(warm, 1))


def test_arrivals_come_at_their_rate() -> None:
    found = list(arrivals(dice_of("any", 1), 5.0, 1000.0))

    assert 4800 < len(found) < 5200
    assert found == list(arrivals(dice_of("any", 1), 5.0, 1000.0))


def test_both_versions_of_cgroups_get_the_same_quota(tmp_path: Path) -> None:
    one, two = Cgroup(tmp_path / "one"), Cgroup(tmp_path / "two")
    one.path.mkdir()
    two.path.mkdir()
    (one.path / "cpu.cfs_quota_us").touch()
    for each in (one, two):
        each.limit(0.28)

    assert (one.path / "cpu.cfs_quota_us").read_text() == "5600"
    assert (two.path / "cpu.max").read_text() == "5600 20000"


def test_a_process_held_in_turns_is_stopped_at_times_and_runs_on_afterwards() -> None:
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(sleeps) as child:
        process = psutil.Process(child.pid)
        with in_turns(child.pid, 0.12):
            deadline = time.monotonic() + PATIENCE
            while process.status() != psutil.STATUS_STOPPED:
                assert time.monotonic() < deadline
        status = process.status()
        child.kill()

    assert status != psutil.STATUS_STOPPED
