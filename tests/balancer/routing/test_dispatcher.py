import pytest

from balancer.dialects.prompt import chain
from balancer.prediction.cost import estimates
from balancer.prediction.engine_model import EngineModel
from tests.balancer.engine_models import GPU, LAPTOP, PI, Fleet, a_prompt, a_request


def test_an_idle_fleet_sends_to_the_machine_that_answers_soonest() -> None:
    fleet = Fleet(pi=(PI, 1), gpu=(GPU, 4), laptop=(LAPTOP, 2))

    assert fleet.sends(a_prompt(b"hello")).engine.name == "gpu"


def test_it_rather_waits_for_the_gpu_than_starts_a_minute_on_a_pi() -> None:
    fleet = Fleet(pi=(PI, 1), gpu=(GPU, 1))
    first = fleet.sends(a_prompt(b"one"))
    fleet.asks(a_prompt(b"two"), 0.1)

    assert fleet.assigns(0.1) == []
    (second,) = fleet.answers(first, 1.5)

    assert second.engine.name == "gpu"


@pytest.mark.parametrize("began", [False, True])
def test_it_does_not_wait_for_ever_for_an_engine_that_hangs(*, began: bool) -> None:
    fleet = Fleet(pi=(PI, 1), gpu=(GPU, 1))
    hanging = fleet.sends(a_prompt(b"one"))
    if began:
        hanging.engine.wrote(hanging, 0.5)
    fleet.asks(a_prompt(b"two"), 0.6)

    assert fleet.assigns(0.6) == []
    assert fleet.assigns(2.0) == []
    (second,) = fleet.assigns(120.0)

    assert second.engine.name == "pi"


def test_when_the_gpu_is_far_behind_the_laptop_serves() -> None:
    fleet = Fleet(laptop=(LAPTOP, 2), gpu=(GPU, 1))
    names = []
    for number in range(12):
        fleet.asks(a_prompt(b"%d" % number), answer=300.0)
        names += [assignment.engine.name for assignment in fleet.assigns(0.0)]

    assert set(names) == {"gpu", "laptop"}


def test_a_conversation_comes_back_to_the_engine_that_holds_it() -> None:
    fleet = Fleet(one=(LAPTOP, 1), two=(LAPTOP, 1))
    fleet.holds("two", 0, a_prompt(b"question" * 100))

    assignment = fleet.sends(a_prompt(b"question" * 100, b"answer", b"more"), 5.0)

    assert assignment.engine.name == "two"
    assert assignment.estimate.cached > 600


def test_unless_another_would_still_answer_sooner() -> None:
    fleet = Fleet(pi=(PI, 1), gpu=(GPU, 4))
    fleet.holds("pi", 0, a_prompt(b"question" * 20))

    assignment = fleet.sends(a_prompt(b"question" * 20, b"answer", b"more" * 300), 5.0)

    assert assignment.engine.name == "gpu"


def test_a_new_conversation_does_not_take_the_slot_of_an_active_one() -> None:
    fleet = Fleet(one=(LAPTOP, 2))
    fleet.holds("one", 0, chain([b"x" * 9000]), since=99.0)
    fleet.holds("one", 1, chain([b"y" * 9000]), since=-500.0)

    assert fleet.sends(chain([b"z" * 400]), 100.0).slot == 1


def test_what_a_conversation_was_elsewhere_is_given_away_first() -> None:
    fleet = Fleet(one=(LAPTOP, 3))
    fleet.holds("one", 0, chain([b"x" * 9000]), since=50.0)
    fleet.holds("one", 1, a_prompt(b"a"), since=99.0)
    answer = b"b" * 400
    fleet.holds("one", 2, a_prompt(b"a", answer, b"c"), since=99.0)
    goes_on = fleet.sends(a_prompt(b"a", answer, b"c", answer, b"d"), 100.0)

    stranger = fleet.sends(chain([b"z" * 400]), 100.0)

    assert (goes_on.slot, stranger.slot) == (2, 1)


def test_no_two_requests_get_the_same_slot() -> None:
    fleet = Fleet(one=(LAPTOP, 3), two=(PI, 2))
    for number in range(9):
        fleet.asks(a_prompt(b"%d" % number))

    assignment = fleet.assigns(0.0)

    taken = [(each.engine.name, each.slot) for each in assignment]
    assert len(taken) == len(set(taken))


def test_two_that_wait_do_not_count_on_the_same_slot() -> None:
    fleet = Fleet(slow=(LAPTOP, 1), gpu=(GPU, 1))
    fleet.sends(a_prompt(b"running"), answer=200.0)
    for number in range(8):
        fleet.asks(a_prompt(b"%d" % number), answer=200.0)

    assignment = fleet.assigns(0.5)

    assert [each.engine.name for each in assignment] == ["slow"]
    assert fleet.engines["gpu"].queued + fleet.engines["slow"].queued == 7


def test_a_request_that_leaves_the_queue_leaves_no_trace() -> None:
    fleet = Fleet(gpu=(GPU, 1), pi=(PI, 1))
    fleet.sends(a_prompt(b"running"))
    waits = fleet.asks(a_prompt(b"waits"))
    fleet.assigns(0.0)

    fleet.dispatcher.withdraw(waits)

    assert fleet.engines["gpu"].queued == 0


def test_a_request_that_would_be_too_late_is_turned_away_with_the_time_it_lacks() -> (
    None
):
    fleet = Fleet(pi=(PI, 1))
    request = a_request(a_prompt(b"x" * 4000), 0.0, deadline=10.0)

    turned = fleet.offers(request, 0.0)

    assert turned is not None
    assert turned.predicted == pytest.approx(60, rel=0.2)
    assert turned.retry_after >= turned.predicted - 10


def test_a_full_queue_refuses_but_not_what_can_start_at_once() -> None:
    fleet = Fleet(queue=1, gpu=(GPU, 1))
    running = fleet.sends(a_prompt(b"running"))
    fleet.asks(a_prompt(b"waits"))
    fleet.assigns(0.0)

    turned = fleet.offers(a_request(a_prompt(b"more"), 0.0), 0.0)

    assert turned is not None
    assert turned.retry_after >= 1
    fleet.answers(running, 2.0)
    assert fleet.waiting == {}


def test_a_flood_from_one_client_does_not_hold_up_another() -> None:
    fleet = Fleet(one=(LAPTOP, 1))
    running = fleet.sends(a_prompt(b"running"))
    for number in range(30):
        fleet.asks(a_prompt(b"flood %d" % number), client="flood")
    order = []
    for step in range(1, 12):
        (running,) = fleet.answers(running, 12.0 * step)
        order.append(running.request.client)
        if step == 5:
            fleet.asks(a_prompt(b"a much longer question " * 100), 60.0, client="guest")

    assert "guest" in order[5:8]


def test_many_that_wait_for_a_load_do_not_keep_others_from_an_idle_slot() -> None:
    fleet = Fleet(one=(LAPTOP, 1))
    engines = list(fleet.engines.values())
    fleet.dispatcher.eligible = lambda each: [] if each.client == "cold" else engines
    for number in range(100):
        fleet.asks(a_prompt(b"cold %d" % number), client="cold")

    fleet.asks(a_prompt(b"warm"), 1.0)

    assert [each.engine.name for each in fleet.assigns(1.0)] == ["one"]


def test_the_longest_prompt_is_served_though_short_ones_keep_coming() -> None:
    fleet = Fleet(one=(LAPTOP, 1))
    running = fleet.sends(a_prompt(b"running"))
    patient = fleet.asks(chain([b"long" * 6000]), client="patient")
    for step in range(1, 100):
        fleet.asks(chain([b"short"]), 10.0 * step, client="quick")
        (running,) = fleet.answers(running, 10.0 * step)
        if running.request is patient:
            return

    pytest.fail("it was never served")


def test_a_session_without_a_shared_text_goes_back_to_its_engine() -> None:
    fleet = Fleet(one=(LAPTOP, 1), two=(LAPTOP, 1))
    fleet.asks(chain([b"a" * 4000]), session="mine")
    (first,) = fleet.assigns(0.0)
    fleet.answers(first, 12.0)

    fleet.asks(chain([b"b" * 4000]), 60.0, session="mine")
    (second,) = fleet.assigns(60.0)

    assert second.engine is first.engine


def test_several_answers_at_once_take_several_slots() -> None:
    fleet = Fleet(one=(LAPTOP, 1), four=(PI, 4))
    fleet.asks(a_prompt(b"three of them"), slots=3)
    fleet.engines.pop("one")

    (assignment,) = fleet.assigns(0.0)

    assert len({assignment.slot, *assignment.others}) == 3
    assert assignment.engine.taken == 3
    fleet.answers(assignment, 60.0)
    assert assignment.engine.taken == 0


def test_every_engine_is_in_the_explanation_cheapest_first() -> None:
    fleet = Fleet(pi=(PI, 1), gpu=(GPU, 4), laptop=(LAPTOP, 2))

    assignment = fleet.sends(a_prompt(b"hello"))

    seen = estimates(assignment.considered)
    assert seen[0].engine.name == "gpu"
    assert {each.engine.name for each in seen} == {"pi", "gpu", "laptop"}
    assert seen[0] == assignment.estimate
    assert [each.cost for each in seen] == sorted(each.cost for each in seen)


def test_an_engine_that_restarts_has_forgotten() -> None:
    fleet = Fleet(one=(LAPTOP, 1))
    fleet.holds("one", 0, a_prompt(b"question"))
    engine: EngineModel = fleet.engines["one"]

    engine.restarted()

    assert (
        fleet.sends(a_prompt(b"question", b"answer", b"more"), 1.0).estimate.cached == 0
    )


def test_a_request_given_up_while_it_was_read_leaves_nothing_to_count_on() -> None:
    fleet = Fleet(one=(LAPTOP, 1))
    assignment = fleet.sends(a_prompt(b"question"))

    assignment.engine.drop(assignment, 0.5)

    assert assignment.engine.taken == 0
    assert fleet.sends(a_prompt(b"question"), 1.0).estimate.cached == 0


def test_other_balancers_requests_count_as_taken_slots() -> None:
    fleet = Fleet(one=(LAPTOP, 1))
    fleet.engines["one"].foreign = 1
    fleet.engines["one"].stale = True
    fleet.asks(a_prompt(b"hello"))

    assert fleet.assigns(0.0) == []


def test_the_engine_tells_how_long_a_shared_beginning_is() -> None:
    fleet = Fleet(one=(LAPTOP, 2), two=(PI, 1))
    first = fleet.sends(a_prompt(b"a" * 300))
    fleet.dispatcher.began(first, 0.0, 700, 0)
    first.engine.end(first, 9.0, 10)
    second = fleet.sends(a_prompt(b"b" * 300), 10.0)
    fleet.dispatcher.began(second, 10.0, 702, 612)

    third = fleet.dispatcher.choose(a_request(a_prompt(b"c" * 300), 11.0), 11.0)

    assert third is not None
    assert third.tokens == pytest.approx(
        612 + 316 * 700 / first.request.routing.prompt.size, abs=2
    )
