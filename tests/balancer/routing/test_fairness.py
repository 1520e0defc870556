from hypothesis import given
from hypothesis import strategies as st

from balancer.dialects.prompt import EMPTY
from balancer.prediction.weights import OVERTAKE
from balancer.routing.fairness import FairOrder
from balancer.routing.queued_request import QueuedRequest
from balancer.state import build_state
from edgeserve.config.settings import BalancerSettings
from tests.balancer.engine_models import a_request


def a_waiter(
    client: str, arrived: float, work: float, *, again: bool = False
) -> QueuedRequest:
    tried = frozenset({("pi", "small", "", 1)}) if again else frozenset()
    request = a_request(EMPTY, arrived, client=client, tried=tried)
    request.work = work
    return request


waiters = st.lists(
    st.builds(
        a_waiter,
        client=st.sampled_from("abc"),
        arrived=st.floats(0, 100),
        work=st.floats(0, 1000),
        again=st.booleans(),
    ),
    max_size=30,
)


@given(waiters)
def test_every_request_has_a_place_and_only_one(waiting: list[QueuedRequest]) -> None:
    ranked = FairOrder().ranked(waiting, 100.0)

    assert sorted(ranked, key=repr) == sorted(waiting, key=repr)


def test_the_least_work_goes_first() -> None:
    long, short = a_waiter("a", 0.0, 60.0), a_waiter("b", 0.0, 1.0)

    assert FairOrder(work=10.0).ranked([long, short], 1.0) == [short, long]


def test_without_overtaking_requests_are_served_as_they_come() -> None:
    order = FairOrder(overtake=0.0, work=10.0)
    long, short = a_waiter("a", 0.0, 60.0), a_waiter("b", 0.5, 1.0)

    assert order.ranked([short, long], 1.0) == [long, short]


def test_of_requests_with_much_work_the_first_that_came_goes_first() -> None:
    order = FairOrder(work=1.0)
    first, shorter = a_waiter("a", 0.0, 90.0), a_waiter("b", 1.0, 60.0)

    assert order.ranked([shorter, first], 2.0) == [first, shorter]


def test_a_kept_slot_is_given_up_once_a_request_has_waited_long() -> None:
    order, request = FairOrder(work=4.0), a_waiter("a", 0.0, 6.0)

    assert not order.outranks_returning(request, 1.0)
    assert order.outranks_returning(request, 60.0)


def test_a_retried_request_does_not_wait_for_a_conversation_to_return() -> None:
    order, failed = FairOrder(work=4.0), a_waiter("a", 0.0, 6.0, again=True)

    assert order.outranks_returning(failed, 0.0)


def test_a_request_that_waited_long_goes_before_shorter_new_ones() -> None:
    patient, newcomer = a_waiter("a", 0.0, 60.0), a_waiter("b", 300.0, 1.0)

    assert FairOrder().ranked([newcomer, patient], 300.0)[0] is patient


def test_a_retried_request_goes_before_all_others() -> None:
    failed = a_waiter("a", 300.0, 60.0, again=True)
    patient = a_waiter("b", 0.0, 1.0)

    assert FairOrder().ranked([patient, failed], 300.0)[0] is failed


def test_a_client_that_used_much_ranks_behind_and_recovers_in_time() -> None:
    order = FairOrder(work=3.0, uses={"greedy": (300.0, 0.0)})
    greedy, modest = a_waiter("greedy", 0.0, 1.0), a_waiter("modest", 0.0, 5.0)

    assert order.ranked([greedy, modest], 1.0)[0] is modest
    assert order.ranked([greedy, modest], 3600.0)[0] is greedy


def test_a_flood_does_not_age_into_precedence() -> None:
    flood = [a_waiter("flood", 0.0, 1.0) for _ in range(40)]
    guest = a_waiter("guest", 50.0, 4.0)

    assert FairOrder().ranked([*flood, guest], 75.0)[0] is guest


def test_very_many_clients_are_not_all_remembered() -> None:
    order = FairOrder()

    for number in range(5000):
        order.charge(str(number), 1.0, float(number))

    assert len(order.uses) <= 4096


def test_the_setting_says_how_far_requests_overtake() -> None:
    state = build_state(BalancerSettings(overtake=2.5), lambda _: None)

    assert state.predictive.dispatcher.order.overtake == 2.5
    assert BalancerSettings().overtake == OVERTAKE


def going_on(arrived: float, waited: float) -> QueuedRequest:
    request = a_waiter("a", arrived, 1.0)
    request.waited = waited
    return request


def test_a_conversation_that_has_waited_goes_before_one_that_begins() -> None:
    order = FairOrder(work=1.0)
    begins, goes_on = a_waiter("a", 0.0, 1.0), going_on(2.0, waited=4.0)

    assert order.ranked([begins, goes_on], 3.0) == [goes_on, begins]


def test_what_it_has_waited_keeps_a_newcomer_waiting_only_so_long() -> None:
    order = FairOrder(work=1.0)
    begins, goes_on = a_waiter("a", 0.0, 1.0), going_on(8.0, waited=1e6)

    assert order.ranked([goes_on, begins], 9.0) == [begins, goes_on]


def test_without_overtaking_it_does_not_count_what_a_conversation_has_waited() -> None:
    order = FairOrder(overtake=0.0, work=1.0)
    begins, goes_on = a_waiter("a", 0.0, 1.0), going_on(2.0, waited=4.0)

    assert order.ranked([goes_on, begins], 3.0) == [begins, goes_on]
