import pytest

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
        (1.0, "first"),
        (2.0, "end"),
    ]


def test_prompts_are_read_one_after_the_other() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, None, noise=0.0)
    engine.send(a_call(1), 0.0, None, noise=0.0)

    assert times(engine, "first") == [1.0, 2.0]


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
    assert run.reading == pytest.approx(1 / 400)


def test_more_than_its_slots_is_deferred_and_started_in_order() -> None:
    engine = Engine(BOX)
    started = [engine.send(a_call(i), 0.0, None, noise=0.0) for i in range(5)]

    began = [event.run.call.id for _, event in played(engine) if event.kind == "began"]

    assert [run is not None for run in started] == [True, True, False, False, False]
    assert began == [2, 3, 4]
    assert engine.idle == 2


def test_a_pinned_request_waits_for_its_slot_though_another_is_free() -> None:
    engine = Engine(BOX)
    engine.send(a_call(0), 0.0, 1, noise=0.0)

    assert engine.send(a_call(1), 0.0, 1, noise=0.0) is None
