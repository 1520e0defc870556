import pytest

from edgeserve.wire import Expected, Launch
from node.engines.probe import Counters, parse
from node.supervision.liveness import DecodeWatchdog, watchdog_of
from tests.fakes.engines import a_spec

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


def still(
    watch: DecodeWatchdog, counters: Counters | None, until: float
) -> DecodeWatchdog:
    """Look every two seconds at an engine that gets nowhere."""
    now = max(watch.since, watch.looked)
    while now < until:
        now += 2
        watch = watch.seen(counters, now)
    return watch


def test_metrics_of_llama_cpp_are_understood() -> None:
    assert parse(METRICS) == WORKING


@pytest.mark.parametrize("text", ["", "nonsense", "llamacpp:n_decode_total what"])
def test_metrics_that_make_no_sense_count_as_nothing(text: str) -> None:
    assert parse(text) == Counters((0, 0, 0), working=False)


def test_counters_that_stand_still_during_work_add_up() -> None:
    watch = still(DecodeWatchdog(0.0).seen(WORKING, 1.0), WORKING, 61.0)

    assert watch.still_seconds(61.0) == 60.0


def test_any_counter_that_moves_is_progress() -> None:
    moved = Counters((16, 38, 14), working=True)
    watch = DecodeWatchdog(0.0).seen(WORKING, 1.0).seen(moved, 5.0)

    assert watch.still_seconds(6.0) == 1.0


def test_an_engine_without_work_is_never_late() -> None:
    resting = Counters((15, 38, 14), working=False)
    watch = DecodeWatchdog(0.0).seen(resting, 1.0).seen(resting, 500.0)

    assert watch.still_seconds(500.0) == 0.0


def test_silence_is_no_progress() -> None:
    watch = still(DecodeWatchdog(0.0).seen(WORKING, 1.0), None, 39.0)

    assert watch.still_seconds(40.0) == 39.0


FAST = DecodeWatchdog(0.0, call=0.1, full=8)
WARM = Counters((100, 50, 40), working=True)


def test_an_engine_that_should_be_fast_is_given_ten_seconds() -> None:
    watch = still(FAST, WARM, 20.0)

    assert watch.patience(120.0) == 10.0


def test_a_slow_machine_that_reads_a_long_prompt_gets_enough_time() -> None:
    pi = DecodeWatchdog(0.0, call=256 / 20, full=8)

    assert still(pi, WARM, 20.0).patience(120.0) == 120.0
    assert still(pi, WARM, 20.0).patience(600.0) == pytest.approx(20 * 256 / 20)


def test_calls_that_take_longer_than_they_should_are_learned() -> None:
    watch = FAST
    for call in range(4):
        counters = Counters((100 + call, 50, 40), working=True)
        watch = still(watch, counters, 8.0 * (call + 1))

    assert watch.patience(600.0) == pytest.approx(20 * 8.0)


def test_pauses_between_requests_teach_nothing() -> None:
    resting = Counters((100, 50, 40), working=False)
    watch = still(FAST, resting, 30.0).seen(Counters((101, 50, 40), working=True), 31)

    assert watch.patience(600.0) == 10.0


@pytest.mark.parametrize(
    "counters", [None, Counters((3, 4, 1), working=True)], ids=["silent", "cold"]
)
def test_an_engine_of_which_little_is_known_is_given_the_whole_time(
    counters: Counters | None,
) -> None:
    assert still(FAST, counters, 20.0).patience(120.0) == 120.0


RESTING = Counters((100, 50, 40), working=False)


@pytest.mark.parametrize(
    "before", [FAST.seen(WARM, 2.0).again(4.0), FAST.seen(RESTING, 2.0)]
)
def test_an_engine_that_hangs_before_the_first_look_at_its_work_is_found_soon(
    before: DecodeWatchdog,
) -> None:
    watch = still(before, None, 20.0)

    assert watch.patience(120.0) == 10.0
    assert watch.still_seconds(20.0) > 10.0


def test_a_late_look_does_not_count_its_own_delay() -> None:
    watch = still(FAST, WARM, 4.0).seen(WARM, 3600.0)

    assert watch.still_seconds(3600.0) < 13.0


def test_what_something_else_explains_is_no_lack_of_progress() -> None:
    watch = still(FAST, WARM, 8.0).seen(WARM, 10.0, excused=True)

    assert watch.still_seconds(12.0) == 2.0


def test_what_is_expected_of_an_engine_says_how_long_its_calls_are() -> None:
    expects = Expected(read=20, write=5)
    spec = a_spec(expected=expects)

    assert watchdog_of(spec, 0.0, vision=False).call == pytest.approx(128 / 20)
    assert watchdog_of(spec, 0.0, vision=True).call is None
    assert watchdog_of(a_spec(), 0.0, vision=False).call is None
    assert watchdog_of(a_spec(role="rerank"), 0.0, vision=False).call is None


@pytest.mark.parametrize(("layers", "limit"), [(0, 20 * 0.4), (-1, 120.0)])
def test_only_a_gpu_may_compile_before_its_first_batch(
    layers: int, limit: float
) -> None:
    launch = Launch(slots=2, context=2048, batch=8, threads=2, gpu_layers=layers)
    spec = a_spec(launch=launch, expected=Expected(read=20, write=5))

    found = still(watchdog_of(spec, 0.0, vision=False), None, 20.0).patience(120.0)

    assert found == max(10.0, limit)
