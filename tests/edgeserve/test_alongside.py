import asyncio

import pytest

from edgeserve.alongside import alongside


async def test_work_beside_a_block_ends_with_it() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with alongside(work(), name="work"):
        await began.wait()

    assert ended.is_set()


async def test_what_goes_wrong_beside_a_block_is_raised_at_its_end() -> None:
    failed = asyncio.Event()

    async def work() -> None:
        failed.set()
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with alongside(work(), name="work"):
            await failed.wait()
