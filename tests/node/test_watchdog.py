import pytest

from node.watchdog import Counters, Watch, parse

METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 38
llamacpp:tokens_predicted_total 14
llamacpp:n_decode_total 15
llamacpp:requests_processing 1
llamacpp:requests_deferred 0
llamacpp:prompt_tokens_seconds nan
"""

WORKING = Counters((15, 38, 14), working=True)


def test_metrics_of_llama_cpp_are_understood() -> None:
    assert parse(METRICS) == WORKING


@pytest.mark.parametrize("text", ["", "nonsense", "llamacpp:n_decode_total what"])
def test_metrics_that_make_no_sense_count_as_nothing(text: str) -> None:
    assert parse(text) == Counters((0, 0, 0), working=False)


def test_counters_that_stand_still_during_work_add_up() -> None:
    watch = Watch(0.0).seen(WORKING, 1.0).seen(WORKING, 2.0).seen(WORKING, 61.0)

    assert watch.still_seconds(61.0) == 60.0


def test_any_counter_that_moves_is_progress() -> None:
    moved = Counters((16, 38, 14), working=True)
    watch = Watch(0.0).seen(WORKING, 1.0).seen(moved, 50.0)

    assert watch.still_seconds(51.0) == 1.0


def test_an_engine_without_work_is_never_late() -> None:
    resting = Counters((15, 38, 14), working=False)
    watch = Watch(0.0).seen(resting, 1.0).seen(resting, 500.0)

    assert watch.still_seconds(500.0) == 0.0


def test_silence_is_no_progress() -> None:
    watch = Watch(0.0).seen(WORKING, 1.0).seen(None, 2.0).seen(None, 40.0)

    assert watch.still_seconds(40.0) == 39.0
