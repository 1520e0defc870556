from __future__ import annotations

from typing import Any

from balancer.prediction.states.moves import DISTRUST
from edgeserve.wire import Expected
from tests.balancer.caches.building import Moving

FIRST, OTHER = ("system a", "question a"), ("system b", "question b")
AGAIN = (*FIRST, "answer", "another question")


def moved(send: Any) -> dict[str, Any]:
    found: dict[str, Any] = send.shown()["cache_move"]
    return found


async def test_what_a_slot_loses_is_saved_and_comes_back_with_its_conversation() -> (
    None
):
    moving = Moving({"pi": 1})
    await moving.answered(*FIRST)
    await moving.answered(*OTHER)

    send = await moving.answered(*AGAIN)

    assert moving.orders.given == [
        ("save", "pi", 0),
        ("save", "pi", 0),
        ("restore", "pi", 0),
    ]
    assert moved(send)["outcome"] == "moved"
    assert moved(send)["from"] == moved(send)["to"] == "pi"


async def test_what_is_saved_already_is_not_saved_again() -> None:
    moving = Moving({"pi": 1})
    for texts in (FIRST, OTHER, FIRST, OTHER):
        await moving.answered(*texts)

    assert [what for what, _, _ in moving.orders.given].count("save") == 2


async def test_what_is_quick_to_read_is_neither_saved_nor_moved() -> None:
    moving = Moving({"gpu": 1}, expected=Expected(read=50_000.0, write=100.0))
    for texts in (FIRST, OTHER, AGAIN):
        send = await moving.answered(*texts)

        assert moved(send) is None
    assert moving.orders.given == []


async def test_a_refused_move_is_explained_and_not_tried_again() -> None:
    moving = Moving({"pi": 1})
    await moving.answered(*FIRST)
    await moving.answered(*OTHER)
    moving.orders.refuses = "the saved state is not what was saved"

    send = await moving.answered(*AGAIN)
    assert moved(send)["outcome"] == moving.orders.refuses
    moving.orders.given.clear()
    await moving.answered(*AGAIN)

    assert ("restore", "pi", 0) not in moving.orders.given


async def test_a_prefix_in_an_idle_slot_of_a_busy_node_is_fetched_by_an_idle_one() -> (
    None
):
    moving = Moving({"left": 2, "right": 2})
    first = await moving.answered(*FIRST)
    there, other = first.to.node, {"left": "right", "right": "left"}[first.to.node]
    moving.state.predictive.fleet_model.get(first.to.key).scale = 100.0  # type: ignore[union-attr]
    send = await moving.answered(*AGAIN)

    assert send.to.node == other
    assert moving.orders.given[-2:] == [
        ("save", there, first.slot or 0),
        ("restore", other, send.slot or 0),
    ]
    assert moved(send)["why"] == "from an idle slot"


async def test_states_that_spare_nothing_are_not_moved_for_ever() -> None:
    moving = Moving({"pi": 1})
    texts = [FIRST, OTHER]
    for number in range(2 * DISTRUST + 2):
        async with moving.claim(*texts[number % 2]) as send:
            await moving.mover.prepare(send)
            send.progress(700, 0, 0)
            moving.mover.judge(send)
        await moving.answered(*texts[(number + 1) % 2])

    restores = [what for what, _, _ in moving.orders.given if what == "restore"]
    assert len(restores) <= 2 * DISTRUST


async def test_an_engine_that_saves_nothing_is_not_asked() -> None:
    moving = Moving({"pi": 1})
    node = moving.state.current.fleet.node("pi")
    assert node is not None
    (engine,) = node.report.engines
    moving.becomes("pi", engines=(type(engine)(**{**_fields(engine), "saves": None}),))
    for texts in (FIRST, OTHER, AGAIN):
        await moving.answered(*texts)

    assert moving.orders.given == []


def _fields(engine: Any) -> dict[str, Any]:
    return {name: getattr(engine, name) for name in engine.__struct_fields__}


async def test_the_time_that_a_move_takes_is_told_to_the_attempt() -> None:
    moving = Moving({"pi": 1})
    await moving.answered(*FIRST)
    await moving.answered(*OTHER)
    ticks = iter(range(0, 1000, 10))
    moving.mover.clock = lambda: float(next(ticks))

    send: Any = await moving.answered(*AGAIN)

    assert send.prepared > send.cache_move.seconds >= 10.0
