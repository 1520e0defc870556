from dataclasses import replace

import pytest
from msgspec import structs

from balancer.prediction.running import delay
from balancer.simulate.engine import Engine, Event
from balancer.simulate.fleets import Machine
from tests.balancer.simulate.calls import a_call

BOX = Machine(name="box", slots=2, prefill=400, attention=0, decode=50, slowdown=0.5)
"""A second for 400 tokens in, a second for 50 out."""


def played(engine: Engine, until: float = 1e9) -> list[tuple[float, Event]]:
    """Run the engine until it is idle."""
    seen: list[tuple[float, Event]] = []
    while (at := engine.next()) is not None and at <= until:
        seen.extend((at, event) for event in engine.happen(at))
    return seen


def times(engine: Engine, kind: str) -> list[float]:
    return [round(at, 3) for at, event in played(engine) if event.kind == kind]


def test_alone_a_request_takes_what_its_rates_say() -> None:
    engine = Engine(BOX)
    engine.send(a_call(), 0.0, None, noise=0.0)

    assert [(round(at, 3), event.kind) for at, event in played(engine)] == [
        (0.0, "began"),
        (0.64, "progress"),
        (1.0, "progress"),
        (1.0, "first"),
        (2.0, "end"),
    ]


def test_the_next_prompt_fills_up_the_batch_in_which_one_ends() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, None, noise=0.0)
    engine.send(a_call(1), 0.0, None, noise=0.0)

    assert times(engine, "first") == [1.28, 2.0]


def test_a_batch_that_has_begun_is_ended_though_a_lower_slot_has_a_prompt() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, 1, noise=0.0)
    played(engine, until=0.3)
    engine.send(a_call(1), 0.3, 0, noise=0.0)

    firsts = [
        (round(at, 3), event.run.call.id)
        for at, event in played(engine)
        if event.kind == "first"
    ]

    assert firsts == [(0.64 + 0.64 + 0.64, 1), (2.0, 0)]


def test_a_prompt_waits_until_the_running_answers_have_their_token() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, None, noise=0.0)
    played(engine, until=1.0)
    engine.send(a_call(1), 1.505, None, noise=0.0)

    assert times(engine, "began") == [1.52]


@pytest.mark.parametrize("sent", [0.1, 0.7, 1.9, 2.4])
@pytest.mark.parametrize("slot", [0, 2])
def test_prompts_delay_each_other_as_the_balancer_predicts(
    slot: int, sent: float
) -> None:
    engine = Engine(structs.replace(BOX, slots=3))
    engine.send(replace(a_call(0), prompt_tokens=1000), 0.0, 1, noise=0.0)
    played(engine, until=sent)
    every, left = 1000 / 400 - sent, engine.batch_end - sent
    below = every if slot > 1 else 0.0
    predicted = delay(below, every, 1.0, left, BOX.batch / 400)

    run = engine.send(a_call(1), sent, slot, noise=0.0)
    played(engine)

    assert run is not None
    assert run.first == pytest.approx(sent + predicted + 1.0)


def test_a_running_answer_all_but_stops_while_a_prompt_is_read() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, None, noise=0.0)
    played(engine, until=1.0)
    engine.send(a_call(1, answer=1), 1.0, None, noise=0.0)

    ends = times(engine, "end")

    assert ends[0] == 2.0
    assert ends[1] == pytest.approx(3.0, abs=0.05)


def test_two_answers_slow_each_other_down() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0, answer=1001), 0.0, None, noise=0.0)
    engine.send(a_call(1, answer=1001), 0.0, None, noise=0.0)

    assert times(engine, "end")[-1] == pytest.approx(2 + 1000 / 50 * 1.5, rel=0.01)


def test_what_is_cached_is_not_read_again() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, None, noise=0.0)
    played(engine)

    run = engine.send(a_call(1, words=b"0" * 700), 5.0, None, noise=0.0)

    assert run is not None
    assert run.cached == 399
    assert run.unread == 1


def test_more_than_its_slots_is_deferred_and_started_in_order() -> None:
    engine = Engine(BOX)
    started = [engine.send(a_call(i), 0.0, None, noise=0.0) for i in range(5)]

    began = [event.run.call.id for _, event in played(engine) if event.kind == "began"]

    assert [run is not None for run in started] == [True, True, False, False, False]
    assert began == [0, 1, 2, 3, 4]
    assert engine.idle == 2


def test_a_pinned_request_waits_for_its_slot_though_another_is_free() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, 1, noise=0.0)

    assert engine.send(a_call(1), 0.0, 1, noise=0.0) is None
