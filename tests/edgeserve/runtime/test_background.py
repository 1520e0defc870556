from __future__ import annotations

import asyncio
import secrets

import pytest

from edgeserve.runtime import background as module
from edgeserve.runtime.background import (
    LONGEST_PAUSE,
    Kind,
    background,
    declared,
    failures,
    guarded,
    pause,
)
from tests.patience import PATIENCE


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)


def a_kind(policy: module.Policy) -> Kind:
    return Kind(f"test {secrets.token_hex(4)}", policy)


class Work:
    """Fails or ends as often as it is told to, and then works until cancelled."""

    def __init__(self, *outcomes: Exception | None) -> None:
        self.outcomes = list(outcomes)
        self.begun = 0
        self.ended = False
        self.steady = asyncio.Event()

    async def __call__(self) -> None:
        self.begun += 1
        if self.outcomes:
            outcome = self.outcomes.pop(0)
            if outcome is not None:
                raise outcome
            return
        self.steady.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True

    async def until_steady(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self.steady.wait()


async def test_work_beside_a_block_ends_with_it() -> None:
    work = Work()
    async with background() as tasks:
        tasks.start(a_kind("always"), work)
        await work.until_steady()

    assert work.ended


@pytest.mark.parametrize("policy", ["always", "on-failure"])
async def test_what_fails_is_started_again_and_the_block_goes_on(
    policy: module.Policy, caplog: pytest.LogCaptureFixture
) -> None:
    kind, work = a_kind(policy), Work(*[OSError(24, "Too many open files")] * 3)
    async with background() as tasks:
        tasks.start(kind, work, "eth0")
        await work.until_steady()

    assert work.begun == 4
    assert failures.counts[kind.name] == 3
    said = f"background task '{kind.name} eth0' failed: OSError: Too many open files"
    assert caplog.text.count(said) == 1


async def test_what_ends_though_it_never_should_is_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kind, work = a_kind("always"), Work(None, None)
    async with background() as tasks:
        tasks.start(kind, work)
        await work.until_steady()

    assert caplog.text.count("it ended unexpectedly") == 1


@pytest.mark.parametrize("policy", ["on-failure", "never"])
async def test_what_has_done_its_work_is_done(policy: module.Policy) -> None:
    kind, work = a_kind(policy), Work(None)
    async with background() as tasks, asyncio.timeout(PATIENCE):
        await tasks.start(kind, work).task

    assert (work.begun, kind.name in failures.counts) == (1, False)


async def test_what_others_will_start_is_not_started_again() -> None:
    kind, work = a_kind("never"), Work(ValueError("broken"))
    async with background() as tasks, asyncio.timeout(PATIENCE):
        await tasks.start(kind, work).task

    assert (work.begun, failures.counts[kind.name]) == (1, 1)


async def test_an_unrequested_cancellation_is_a_failure() -> None:
    """A future of a library's that is cancelled would end the task without a word."""
    kind, work = a_kind("always"), Work()
    gone = asyncio.get_running_loop().create_future()
    gone.cancel()

    async def first_gone() -> None:
        if not work.begun and kind.name not in failures.counts:
            await gone
        await work()

    async with background() as tasks:
        tasks.start(kind, first_gone)
        await work.until_steady()

    assert failures.counts[kind.name] == 1


async def test_a_task_that_is_cancelled_stays_away() -> None:
    kind, work = a_kind("always"), Work()
    async with background() as tasks:
        task = tasks.start(kind, work).task
        await work.until_steady()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert (work.begun, kind.name in failures.counts) == (1, False)


async def test_a_block_that_raises_leaves_no_task_behind() -> None:
    before, work = asyncio.all_tasks(), Work()

    async def broken() -> None:
        async with background() as tasks:
            tasks.start(a_kind("always"), work)
            await work.until_steady()
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await broken()

    assert asyncio.all_tasks() == before


async def test_listeners_hear_of_every_failure() -> None:
    kind, work, heard = a_kind("always"), Work(OSError("x"), OSError("x")), [0]

    def hear() -> None:
        heard[0] += 1

    with failures.subscribed(hear):
        async with background() as tasks:
            tasks.start(kind, work)
            await work.until_steady()

    assert heard == [2]


def test_what_a_timer_calls_fails_alone(caplog: pytest.LogCaptureFixture) -> None:
    kind = a_kind("timer")
    for _ in range(3):
        guarded(kind, lambda: 1 / 0)

    assert failures.counts[kind.name] == 3
    assert caplog.text.count("division by zero (test_background.py:") == 1


def test_pauses_grow_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 1.0)

    assert [pause(count) for count in (1, 2, 3, 10, 9999)] == [
        1.0,
        2.0,
        4.0,
        LONGEST_PAUSE,
        LONGEST_PAUSE,
    ]


def test_two_kinds_of_one_name_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS", {})
    declared("one")

    with pytest.raises(ValueError, match="twice"):
        declared("one")
