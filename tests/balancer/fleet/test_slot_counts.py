import msgspec

from balancer.fleet.slot_counts import SlotCounts
from tests.balancer.building import a_candidate
from tests.fakes.reports import an_engine

KEY = a_candidate().key


def test_our_slots_count_at_once() -> None:
    slot_counts = SlotCounts()

    slot_counts.take(KEY, 2)

    assert slot_counts.busy(KEY) == 2


def test_our_slots_are_free_at_once() -> None:
    slot_counts = SlotCounts()
    slot_counts.take(KEY, 1)
    slot_counts.update([a_candidate(engine=an_engine(busy=1))])

    slot_counts.give_back(KEY, 1)

    assert slot_counts.busy(KEY) == 0


def test_what_a_node_reports_beyond_ours_is_others_work() -> None:
    slot_counts = SlotCounts()
    slot_counts.take(KEY, 1)

    slot_counts.update([a_candidate(engine=an_engine(busy=2))])

    assert slot_counts.busy(KEY) == 2


def test_a_report_that_does_not_know_of_ours_yet_frees_nothing() -> None:
    slot_counts = SlotCounts()
    slot_counts.take(KEY, 1)

    slot_counts.update([a_candidate(engine=an_engine(busy=0))])

    assert slot_counts.busy(KEY) == 1


def test_a_report_that_is_not_new_is_not_counted_again() -> None:
    slot_counts = SlotCounts()
    slot_counts.take(KEY, 1)
    candidate = a_candidate(engine=an_engine(busy=1))
    slot_counts.update([candidate])
    slot_counts.give_back(KEY, 1)

    slot_counts.update([candidate])

    assert slot_counts.busy(KEY) == 0


def test_others_work_ends_with_the_next_report() -> None:
    slot_counts = SlotCounts()
    slot_counts.update([a_candidate(engine=an_engine(busy=2))])

    slot_counts.update([a_candidate(engine=an_engine(busy=0))])

    assert slot_counts.busy(KEY) == 0


def test_an_engine_that_has_gone_leaves_only_what_is_ours() -> None:
    slot_counts = SlotCounts()
    slot_counts.take(KEY, 1)
    slot_counts.update([a_candidate(engine=an_engine(busy=2))])

    slot_counts.update([])

    assert slot_counts.busy(KEY) == 1


def left_behind() -> SlotCounts:
    """Build counts with one slot that works for a client that has left."""
    slot_counts = SlotCounts()
    slot_counts.take(KEY, 1)
    slot_counts.update([a_candidate(engine=an_engine(busy=1))])
    slot_counts.give_back(KEY, 1, left=True)
    return slot_counts


def test_a_slot_whose_client_has_left_is_taken_until_its_node_counts_less() -> None:
    slot_counts = left_behind()
    at_first = slot_counts.busy(KEY)

    slot_counts.update([a_candidate(engine=an_engine(busy=0))])

    assert at_first == 1
    assert slot_counts.busy(KEY) == slot_counts.of(KEY).left == 0


def test_without_news_the_nodes_last_report_counts() -> None:
    still_busy, never_counted = left_behind(), SlotCounts()
    never_counted.update([a_candidate(engine=an_engine(busy=0))])
    never_counted.take(KEY, 1)
    never_counted.give_back(KEY, 1, left=True)

    still_busy.settle(KEY)
    never_counted.settle(KEY)

    assert still_busy.busy(KEY) == still_busy.of(KEY).left == 1
    assert never_counted.busy(KEY) == 0


def test_a_report_that_may_not_know_of_the_next_request_frees_nothing() -> None:
    slot_counts = left_behind()
    slot_counts.take(KEY, 1)

    slot_counts.update([a_candidate(engine=an_engine(busy=1))])
    stale = slot_counts.busy(KEY)
    slot_counts.update([a_candidate(engine=an_engine(busy=2))])
    both = slot_counts.busy(KEY)
    slot_counts.update([a_candidate(engine=an_engine(busy=1))])

    assert (stale, both, slot_counts.busy(KEY)) == (2, 2, 1)


def test_an_engine_that_restarts_has_no_request() -> None:
    slot_counts = left_behind()
    anew = msgspec.structs.replace(an_engine(busy=1), epoch=1)

    slot_counts.update([a_candidate(engine=anew)])

    assert slot_counts.of(KEY).left == 0


def test_work_that_needs_no_slot_may_outlast_its_engine() -> None:
    slot_counts = SlotCounts()
    slot_counts.update([a_candidate()])
    slot_counts.take(KEY, 0)
    slot_counts.update([])

    slot_counts.give_back(KEY, 0)

    assert slot_counts.busy(KEY) == 0
