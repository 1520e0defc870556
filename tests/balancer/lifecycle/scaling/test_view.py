from balancer.lifecycle.scaling.rules import ScaledModel
from balancer.lifecycle.scaling.view import ScalingView, SeenEngine
from balancer.prediction.engine_model import EngineModel
from balancer.prediction.speed import Speed
from tests.balancer.engine_models import GPU, PI, Fleet, a_prompt


def seen(
    name: str, engine: EngineModel | None, speed: Speed, slots: int = 1
) -> SeenEngine:
    return SeenEngine(
        key=(name, "model"),
        model="model",
        slots=slots,
        speed=speed,
        loaded=engine is not None,
        engine=engine,
        load_seconds=8.0,
    )


def look(
    view: ScalingView, *engines: SeenEngine, waiting: int = 0, now: float = 0.0
) -> ScaledModel:
    [model] = view.look(engines, {"model": waiting}, {}, now)
    return model


def test_with_an_idle_slot_nobody_waits() -> None:
    fleet = Fleet(one=(PI, 1))

    assert look(ScalingView(), seen("one", fleet.engines["one"], PI)).wait == 0


def test_each_that_waits_makes_the_next_one_wait_longer() -> None:
    fleet = Fleet(one=(PI, 1))
    fleet.sends(a_prompt(b"running"))
    engine, view = seen("one", fleet.engines["one"], PI), ScalingView()

    waits = [look(view, engine, waiting=count).wait for count in (0, 1, 5)]

    assert 0 < waits[0] < waits[1] < waits[2]


def test_a_long_queue_counts_whole_though_its_requests_have_reservations() -> None:
    fleet = Fleet(one=(PI, 1))
    fleet.sends(a_prompt(b"running"))
    engine, view = seen("one", fleet.engines["one"], PI), ScalingView()
    before = look(view, engine, waiting=10).wait
    for number in range(10):
        fleet.asks(a_prompt(b"%d" % number))
    fleet.assigns(0.0)
    fleet.engines["one"].reserve(0.0, 20.0)

    assert look(view, engine, waiting=10).wait == before


def test_a_quick_engine_is_expected_to_answer_rather_than_an_idle_slow_one() -> None:
    fleet = Fleet(pi=(PI, 1), gpu=(GPU, 1))
    fleet.sends(a_prompt(b"running"))
    engines = [
        seen("pi", fleet.engines["pi"], PI),
        seen("gpu", fleet.engines["gpu"], GPU),
    ]

    assert 0 < look(ScalingView(), *engines).wait < 10


def test_an_engine_that_is_not_loaded_is_judged_by_its_speed() -> None:
    fleet = Fleet(one=(PI, 1))
    one = seen("one", fleet.engines["one"], PI)

    model = look(ScalingView(), one, seen("two", None, GPU))

    assert [each.key for each in model.replicas] == [("one", "model")]
    [place] = model.absent
    assert place.seconds < model.replicas[0].seconds / 10


def test_an_engine_is_idle_from_the_look_at_which_it_last_worked() -> None:
    fleet, view = Fleet(one=(PI, 1)), ScalingView()
    one, running = seen("one", fleet.engines["one"], PI), fleet.sends(a_prompt(b"a"))
    look(view, one, now=10.0)
    fleet.answers(running, 11.0)

    assert look(view, one, now=25.0).replicas[0].idle_seconds == 15.0
