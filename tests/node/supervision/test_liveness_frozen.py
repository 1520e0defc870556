import pytest

from node.engines.process import Look
from node.supervision.liveness import (
    SILENT,
    SILENT_LOOKS,
    STOPPED,
    STOPPED_LOOKS,
    ProcessActivity,
)


def after(*looks: Look, silent: bool) -> ProcessActivity:
    activity = ProcessActivity(Look(1.0))
    for look in looks:
        activity = activity.seen(look, silent=silent)
    return activity


def test_a_stopped_process_is_given_up_after_a_few_looks() -> None:
    stopped = [Look(1.0, stopped=True)] * STOPPED_LOOKS

    assert after(*stopped[1:], silent=False).lost is None
    assert after(*stopped, silent=False).lost == STOPPED


def test_one_that_does_nothing_and_is_silent_is_given_up() -> None:
    silent = [Look(1.0)] * SILENT_LOOKS

    assert after(*silent[1:], silent=True).lost is None
    assert after(*silent, silent=True).lost == SILENT


def test_one_that_answers_is_let_be_whatever_it_does() -> None:
    assert after(*[Look(1.0)] * 50, silent=False).lost is None


def test_one_that_gets_but_a_hundredth_of_a_processor_is_let_be() -> None:
    starved = [Look(1.0 + 0.01 * number) for number in range(1, 50)]

    assert after(*starved, silent=True).lost is None


def test_one_that_waits_for_a_disk_or_a_debugger_is_let_be() -> None:
    assert after(*[Look(1.0, excused=True)] * 50, silent=True).lost is None


@pytest.mark.parametrize("sign", [Look(2.0), Look(1.0, excused=True)])
def test_any_sign_of_life_begins_the_count_anew(sign: Look) -> None:
    frozen = [Look(1.1, stopped=True)] * (STOPPED_LOOKS - 1)

    assert after(*frozen, sign, *frozen, silent=True).lost is None


def test_one_that_is_stopped_now_and_then_to_slow_it_down_is_let_be() -> None:
    slowed = [Look(1.0 + 0.1 * number, stopped=True) for number in range(1, 50)]

    assert after(*slowed, silent=False).lost is None
