import asyncio
import threading

import pytest

from edgeserve.runtime.tasks import first_of, in_thread
from tests.patience import PATIENCE


async def after(event: asyncio.Event, value: str, ended: list[str]) -> str:
    try:
        await event.wait()
        return value
    finally:
        ended.append(value)


async def test_the_first_to_finish_wins_and_the_other_is_gone() -> None:
    now, never, ended = asyncio.Event(), asyncio.Event(), list[str]()
    now.set()

    assert await first_of(after(never, "b", ended), after(now, "a", ended)) == "a"
    assert sorted(ended) == ["a", "b"]


async def test_an_error_is_raised_and_the_other_is_gone() -> None:
    ended = list[str]()

    async def fails() -> str:
        await asyncio.sleep(0)
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await first_of(after(asyncio.Event(), "b", ended), fails())

    assert ended == ["b"]


async def test_being_cancelled_while_one_fails_is_being_cancelled() -> None:
    failing = asyncio.Event()

    async def fails() -> str:
        await failing.wait()
        raise OSError("no")

    async def waits() -> str:
        await asyncio.Event().wait()
        return ""

    racing = asyncio.ensure_future(first_of(fails(), waits()))
    await asyncio.sleep(0.01)
    failing.set()
    racing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await racing


async def test_work_in_a_thread_is_over_before_its_cancelled_task_is() -> None:
    began, may_end, ended = threading.Event(), threading.Event(), list[str]()

    def writes() -> None:
        began.set()
        assert may_end.wait(PATIENCE)
        ended.append("written")

    task = asyncio.ensure_future(in_thread(writes))
    assert await asyncio.to_thread(began.wait, PATIENCE)
    for _ in range(2):  # a second cancellation does not break the wait either
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    may_end.set()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == ["written"]


async def test_work_in_a_thread_returns_and_raises_as_it_does() -> None:
    assert await in_thread(int, "7") == 7
    with pytest.raises(ValueError, match="seven"):
        await in_thread(int, "seven")
