from balancer.ledger import Ledger
from tests.balancer.building import a_candidate
from tests.fakes.node import an_engine

KEY = a_candidate().key


def test_our_slots_count_at_once() -> None:
    ledger = Ledger()

    ledger.take(KEY, 2)

    assert ledger.busy(KEY) == 2


def test_our_slots_are_free_at_once() -> None:
    ledger = Ledger()
    ledger.take(KEY, 1)
    ledger.told([a_candidate(engine=an_engine(busy=1))])

    ledger.give_back(KEY, 1)

    assert ledger.busy(KEY) == 0


def test_what_a_node_reports_beyond_ours_is_others_work() -> None:
    ledger = Ledger()
    ledger.take(KEY, 1)

    ledger.told([a_candidate(engine=an_engine(busy=2))])

    assert ledger.busy(KEY) == 2


def test_a_report_that_does_not_know_of_ours_yet_frees_nothing() -> None:
    ledger = Ledger()
    ledger.take(KEY, 1)

    ledger.told([a_candidate(engine=an_engine(busy=0))])

    assert ledger.busy(KEY) == 1


def test_a_report_that_is_not_new_is_not_counted_again() -> None:
    ledger = Ledger()
    ledger.take(KEY, 1)
    candidate = a_candidate(engine=an_engine(busy=1))
    ledger.told([candidate])
    ledger.give_back(KEY, 1)

    ledger.told([candidate])

    assert ledger.busy(KEY) == 0


def test_others_work_ends_with_the_next_report() -> None:
    ledger = Ledger()
    ledger.told([a_candidate(engine=an_engine(busy=2))])

    ledger.told([a_candidate(engine=an_engine(busy=0))])

    assert ledger.busy(KEY) == 0


def test_an_engine_that_has_gone_leaves_only_what_is_ours() -> None:
    ledger = Ledger()
    ledger.take(KEY, 1)
    ledger.told([a_candidate(engine=an_engine(busy=2))])

    ledger.told([])

    assert ledger.busy(KEY) == 1
