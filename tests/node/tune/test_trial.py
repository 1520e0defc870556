import math
from pathlib import Path

import msgspec
import pytest

from edgeserve.wire import Launch
from node.planning.tunings import Figures
from node.tune.trial import Bench, TrialFailed, Work, work_for
from tests.fakes.aiohttp_relay import upstream
from tests.fakes.engines import FakeEngine, a_spec
from tests.patience import PATIENCE

LAUNCH = Launch(slots=3, context=512, batch=128, threads=1)


async def figures(
    tmp_path: Path, *flags: str, work: Work | None = None, seconds: float = PATIENCE
) -> Figures:
    async with upstream(connect_seconds=30) as ask:
        bench = Bench(FakeEngine(flags), a_spec(), ask, tmp_path)
        return await bench.figures(LAUNCH, work or Work(), seconds, lambda _: False)


async def test_the_figures_are_what_the_engine_does(tmp_path: Path) -> None:
    found = await figures(tmp_path, "--prefill", "1000", "--decode", "200")

    # A machine that is busy delays the fake; nothing makes it quicker than it is.
    assert 300 < found.prefill < 1050
    assert 60 < found.decode < 210
    # Three streams at once, less what their openings take.
    assert 100 < found.aggregate < 650


async def test_far_slower_figures_are_not_measured_again(tmp_path: Path) -> None:
    judged: list[Figures] = []

    def hopeless(figures: Figures) -> bool:
        judged.append(figures)
        return True

    async with upstream(connect_seconds=30) as ask:
        bench = Bench(FakeEngine(), a_spec(), ask, tmp_path)
        found = await bench.figures(LAUNCH, Work(), PATIENCE, hopeless)

    assert found is judged[0]


async def test_an_engine_that_dies_fails_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match="tensor 7 is missing"):
        await figures(tmp_path, "--say", "tensor 7 is missing", "--exit-after", "0")


async def test_an_engine_that_answers_nonsense_fails(tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match="answered 500"):
        await figures(tmp_path, "--fault", "error")


async def test_a_trial_ends_when_its_time_is_over(tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match="took more than 1 s"):
        await figures(tmp_path, "--load-seconds", "60", seconds=1)


async def test_nothing_is_left_of_the_engine(tmp_path: Path) -> None:
    await figures(tmp_path)

    assert list((tmp_path / "engines" / "running").iterdir()) == []


def test_slow_machines_do_less() -> None:
    pi = Figures(prefill=20, decode=2, aggregate=2)
    gpu = Figures(prefill=9000, decode=300, aggregate=900)

    assert work_for(pi, 6) == Work(prompt=64, answer=16)
    assert work_for(gpu, 6) == Work(prompt=512, answer=128)
    assert math.isclose(work_for(pi, 60).prompt, 200)


def test_many_streams_share_the_work_and_still_write_enough() -> None:
    work = Work(prompt=512, answer=128)

    assert [work.of_many(n) for n in (1, 2, 16)] == [128, 64, 32]
    assert Work(prompt=64, answer=16).of_many(8) == 16


def test_no_more_is_asked_than_a_slot_can_hold() -> None:
    work = Work(prompt=512, answer=128)

    assert work.within(4096) == work
    assert work.within(512) == Work(prompt=383, answer=128)
    assert work.within(100) == Work(prompt=49, answer=50)


async def test_an_engine_with_a_small_context_is_measured_too(
    tmp_path: Path,
) -> None:
    small = msgspec.structs.replace(LAUNCH, context=96)
    async with upstream(connect_seconds=30) as ask:
        bench = Bench(FakeEngine(("--context", "96")), a_spec(), ask, tmp_path)
        work = Work(prompt=512, answer=16)
        found = await bench.figures(small, work, PATIENCE, lambda _: False)

    assert found.decode > 0
