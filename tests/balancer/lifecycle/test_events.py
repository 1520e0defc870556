import asyncio
from contextlib import aclosing

from balancer.lifecycle.events import REMEMBERED, LifecycleEvent, LifecycleEvents
from tests.patience import PATIENCE


def an_event(number: int) -> LifecycleEvent:
    return LifecycleEvent(at=float(number), kind="loaded", node="pi", model="m:Q4_K_M")


def test_only_the_latest_events_are_kept() -> None:
    events = LifecycleEvents()
    for number in range(REMEMBERED + 3):
        events.append(an_event(number))

    assert [each.at for each in events.latest()] == list(range(3, REMEMBERED + 3))


async def test_a_follower_gets_every_event_from_its_call_on() -> None:
    events = LifecycleEvents()
    events.append(an_event(0))
    got = list[float]()

    async with asyncio.timeout(PATIENCE), aclosing(events.follow()) as following:
        events.append(an_event(1))
        asyncio.get_running_loop().call_soon(events.append, an_event(2))
        async for event in following:
            got.append(event.at)
            if event.at == 1:
                events.append(an_event(3))  # while it is busy with another
            if len(got) == 3:
                break

    assert sorted(got) == [1, 2, 3]


async def test_a_slow_follower_misses_what_is_forgotten() -> None:
    events = LifecycleEvents()

    async with asyncio.timeout(PATIENCE), aclosing(events.follow()) as following:
        for number in range(REMEMBERED + 5):
            events.append(an_event(number))

        assert (await anext(following)).at == 5
