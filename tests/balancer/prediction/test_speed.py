import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.prediction.learning import SpeedKey, SpeedLearner, SpeedStore
from balancer.prediction.speed import (
    FEW,
    Sample,
    Speed,
    expected_speed,
    guess,
    parameters,
)
from edgeserve.wire import Expected
from tests.fakes.reports import an_engine

TRUE = Speed(prefill=1 / 120, attention=1 / 120 / 20_000, decode=1 / 15, slowdown=0.4)


def rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - nothing here is secret


def measured(
    speed: Speed, chance: random.Random, *, sequences: int = 1, noise: float = 0.05
) -> Sample:
    fresh, cached = chance.randint(40, 1500), chance.randint(0, 3000)
    factor = chance.lognormvariate(0, noise)
    answer = chance.randint(20, 300)
    return Sample(
        cached=cached,
        prompt=fresh,
        prompt_ms=1000 * factor * speed.prefill_seconds(fresh, cached),
        predicted=answer,
        predicted_ms=1000 * factor * speed.token_seconds(sequences) * (answer - 1),
        sequences=sequences,
    )


def a_learner() -> SpeedLearner:
    return SpeedLearner(guess("model-3b:Q4_K_M", threads=4, on_gpu=False))


def reloaded(body: bytes) -> SpeedStore:
    store = SpeedStore()
    store.load(body)
    return store


@pytest.mark.parametrize("seed", range(5))
def test_twenty_answers_teach_the_speed_within_a_tenth(seed: int) -> None:
    chance, learner = rng(seed), a_learner()

    for _ in range(20):
        learner.learn(measured(TRUE, chance, sequences=chance.randint(1, 3)))

    for fresh, cached in ((100, 0), (500, 0), (200, 2000)):
        expected = TRUE.prefill_seconds(fresh, cached)
        assert learner.speed.prefill_seconds(fresh, cached) == pytest.approx(
            expected, rel=0.1
        )
    for sequences in (1, 2, 3):
        assert learner.speed.token_seconds(sequences) == pytest.approx(
            TRUE.token_seconds(sequences), rel=0.1
        )


def test_one_calibration_probe_is_enough_to_be_near() -> None:
    learner = SpeedLearner(Speed(prefill=1.0, attention=0.0, decode=1.0, slowdown=0.3))

    learner.learn(
        Sample(
            cached=0,
            prompt=128,
            prompt_ms=1000 * TRUE.prefill_seconds(128, 0),
            predicted=16,
            predicted_ms=15_000 * TRUE.decode,
        )
    )

    assert learner.calibrated
    assert learner.speed.prefill == pytest.approx(TRUE.prefill, rel=0.05)
    assert learner.speed.decode == pytest.approx(TRUE.decode, rel=0.05)


def test_a_machine_that_slows_down_is_noticed_within_eight_answers() -> None:
    chance, learner = rng(1), a_learner()
    for _ in range(100):
        learner.learn(measured(TRUE, chance))
    slow = Speed(
        prefill=2 * TRUE.prefill,
        attention=2 * TRUE.attention,
        decode=2 * TRUE.decode,
        slowdown=TRUE.slowdown,
    )

    for _ in range(8):
        learner.learn(measured(slow, chance))

    assert learner.speed.prefill_seconds(500, 0) == pytest.approx(
        slow.prefill_seconds(500, 0), rel=0.15
    )


def test_one_wild_sample_does_not_throw_it() -> None:
    chance, learner = rng(1), a_learner()
    for _ in range(30):
        learner.learn(measured(TRUE, chance))
    before = learner.speed.prefill_seconds(500, 0)

    learner.learn(
        Sample(cached=0, prompt=400, prompt_ms=1e7, predicted=100, predicted_ms=1e7)
    )

    assert learner.speed.prefill_seconds(500, 0) < 1.35 * before


def test_tiny_prefills_and_answers_teach_nothing() -> None:
    learner = a_learner()
    before = learner.speed

    learner.learn(
        Sample(cached=900, prompt=8, prompt_ms=500.0, predicted=2, predicted_ms=500.0)
    )

    assert learner.speed == before


def test_time_that_went_to_others_does_not_count() -> None:
    learner = a_learner()
    own = 1000 * TRUE.prefill_seconds(600, 0)
    writing = 1000 * TRUE.token_seconds(1) * 99

    learner.learn(
        Sample(
            cached=0,
            prompt=600,
            prompt_ms=own + 3000,
            predicted=100,
            predicted_ms=writing + 2000,
            waited_ms=3000,
            stalled_ms=2000,
        )
    )

    assert learner.speed.prefill_seconds(600, 0) == pytest.approx(own / 1000, rel=0.05)
    assert learner.speed.token_seconds(1) == pytest.approx(TRUE.decode, rel=0.05)


samples = st.builds(
    Sample,
    cached=st.integers(0, 100_000),
    prompt=st.integers(0, 100_000),
    prompt_ms=st.floats(0, 1e8),
    predicted=st.integers(0, 10_000),
    predicted_ms=st.floats(0, 1e8),
    waited_ms=st.floats(0, 1e8),
    stalled_ms=st.floats(0, 1e8),
    sequences=st.floats(1, 64),
)


@given(st.lists(samples, max_size=40), st.integers(0, 50_000), st.integers(1, 50_000))
def test_whatever_is_measured_no_prediction_is_negative(
    taught: list[Sample], cached: int, fresh: int
) -> None:
    learner = a_learner()

    for sample in taught:
        learner.learn(sample)

    assert learner.speed.prefill_seconds(fresh, cached) > 0
    assert learner.speed.token_seconds(1) > 0
    assert learner.speed.token_seconds(8) >= learner.speed.token_seconds(1)


def a_key(launch: str = "slots=2") -> SpeedKey:
    return SpeedKey("node", "b1", "model:Q4", launch)


def test_what_was_learned_outlives_a_restart() -> None:
    store, chance = SpeedStore(), rng(1)
    learner = store.learner(a_key(), guess("m", 4, on_gpu=False))
    for _ in range(10):
        learner.learn(measured(TRUE, chance))

    again = reloaded(store.dump()).learner(a_key(), guess("m", 4, on_gpu=False))

    assert again.speed == learner.speed
    assert again.calibrated


def test_other_launch_settings_are_learned_anew() -> None:
    store, chance = SpeedStore(), rng(1)
    learner = store.learner(a_key(), guess("m", 4, on_gpu=False))
    learner.learn(measured(TRUE, chance))

    assert not store.learner(a_key("slots=4"), guess("m", 4, on_gpu=False)).calibrated


STORED = b"""{"pi b1 small:Q4_1 c8192": {
    "reading": {"base": 0.002, "slope": 1e-7, "weight": 900.0, "x": 9e5, "y": 1.9,
                "xx": 1e9, "xy": 2000.0, "streak": 1, "eager": 0},
    "writing": {"base": 0.05, "slope": 0.02, "weight": 90.0, "x": 9.0, "y": 4.6,
                "xx": 9.0, "xy": 0.6, "streak": 0, "eager": 2},
    "samples": 7,
    "few": {"base": 0.01, "slope": 1e-6, "weight": 2.0, "x": 5.0, "y": 0.1,
            "xx": 14.0, "xy": 0.2}}}"""


def test_what_an_earlier_version_has_stored_is_read() -> None:
    key = SpeedKey("pi", "b1", "small:Q4_1", "c8192")

    learner = reloaded(STORED).learner(key, guess("m", 4, on_gpu=False))

    assert (learner.samples, learner.reading.streak, learner.writing.eager) == (7, 1, 2)
    assert learner.speed.prefill == 0.002
    assert learner.speed.slowdown == pytest.approx(0.4)
    assert (learner.speed.few_start, learner.speed.few) == (0.01, 1e-6)
    assert msgspec.json.decode(reloaded(STORED).dump()) == msgspec.json.decode(STORED)


def test_a_broken_speed_store_is_an_empty_one() -> None:
    assert reloaded(b"{").dump() == b"{}"


@pytest.mark.parametrize(
    ("variant", "billions"),
    [
        ("smollm2-135m-instruct:Q4_1", 0.135),
        ("qwen2.5-1.5b-instruct:Q4_K_M", 1.5),
        ("llama-3.2-3B", 3.0),
        ("mistral", 1.0),
        ("phi-4-14b:Q8_0", 14.0),
    ],
)
def test_the_name_tells_the_size(variant: str, billions: float) -> None:
    assert parameters(variant) == billions


def test_more_threads_and_gpus_are_believed_to_be_faster() -> None:
    one, eight = guess("m-1b", 1, on_gpu=False), guess("m-1b", 8, on_gpu=False)
    gpu = guess("m-1b", 8, on_gpu=True)

    assert one.prefill > eight.prefill > gpu.prefill
    assert one.decode > eight.decode > gpu.decode


def test_what_a_node_expects_counts_more_than_the_name_of_its_model() -> None:
    engine = an_engine("m-1b:Q4")
    told = msgspec.structs.replace(engine, expected=Expected(read=50.0, write=4.0))

    speed = expected_speed(told)

    assert speed.prefill == pytest.approx(1 / 50)
    assert speed.token_seconds(1) == pytest.approx(1 / 4)
    assert expected_speed(engine) == guess("m-1b:Q4", 2, on_gpu=False)


def test_slower_reading_than_expected_lowers_the_expected_writing_speed() -> None:
    learner = SpeedLearner(
        Speed(prefill=1 / 100, attention=0.0, decode=1 / 10, slowdown=0.3)
    )

    learner.learn(
        Sample(cached=0, prompt=100, prompt_ms=4000.0, predicted=0, predicted_ms=0.0)
    )

    assert learner.speed.prefill == pytest.approx(1 / 25)
    assert 1 / 10 < learner.speed.decode < 4 / 10
    learner.learn(
        Sample(
            cached=0, prompt=100, prompt_ms=4000.0, predicted=11, predicted_ms=1000.0
        )
    )
    assert learner.speed.decode == pytest.approx(1 / 10)


def test_a_long_probe_counts_instead_of_the_short_one_before_it() -> None:
    learner = SpeedLearner(
        Speed(prefill=1 / 100, attention=0.0, decode=1 / 10, slowdown=0.3)
    )

    learner.begin(
        Sample(cached=0, prompt=32, prompt_ms=320.0, predicted=5, predicted_ms=4000.0)
    )
    learner.begin(
        Sample(cached=0, prompt=128, prompt_ms=64.0, predicted=16, predicted_ms=1500.0)
    )

    assert learner.speed.prefill_seconds(128, 0) == pytest.approx(0.064, rel=0.01)
    assert learner.speed.decode == pytest.approx(1 / 10)


SMALL = Speed(prefill=6.1e-3, attention=1.2e-6, decode=0.02, slowdown=0.3)
"""SmolLM2 on one thread, as measured; a few tokens take 5 µs more for each before."""


def short_turns(learner: SpeedLearner, noise: float) -> None:
    """Half of the prompts are long, half short behind long conversations."""
    chance = rng(5)
    for turn in range(60):
        cached = chance.randint(200, 1500)
        fresh = chance.randint(8, 50) if turn % 2 else chance.randint(100, 600)
        more = 5e-6 * fresh * (cached + fresh / 2) if fresh < FEW else 0.0
        seconds = SMALL.prefill_seconds(fresh, cached) + more
        factor = chance.lognormvariate(0, noise)
        learner.learn(
            Sample(
                cached=cached,
                prompt=fresh,
                prompt_ms=1000 * factor * seconds,
                predicted=0,
                predicted_ms=0.0,
            )
        )


def test_a_few_tokens_behind_many_are_known_to_take_longer() -> None:
    learner = SpeedLearner(
        Speed(prefill=1 / 100, attention=1e-6, decode=1 / 50, slowdown=0.3)
    )

    short_turns(learner, noise=0.05)

    for fresh, cached in ((10, 300), (30, 900), (50, 1400)):
        true = SMALL.prefill_seconds(fresh, cached) + 5e-6 * fresh * (
            cached + fresh / 2
        )
        assert learner.speed.prefill_seconds(fresh, cached) == pytest.approx(
            true, rel=0.15
        )
    assert learner.speed.prefill_seconds(400, 900) == pytest.approx(
        SMALL.prefill_seconds(400, 900), rel=0.1
    )
    assert learner.speed.prefill_seconds(0, 900) == 0


def test_what_starts_slowly_is_known_to_for_a_few_tokens_only() -> None:
    learner = SpeedLearner(
        Speed(prefill=1 / 2000, attention=1e-9, decode=1 / 90, slowdown=0.1)
    )
    for fresh in (500, 20, 300, 12, 800, 30) * 10:
        start = 15.0 if fresh < FEW else 0.0
        learner.learn(
            Sample(
                cached=0,
                prompt=fresh,
                prompt_ms=start + fresh / 4,
                predicted=0,
                predicted_ms=0.0,
            )
        )

    assert learner.speed.prefill_seconds(20, 0) == pytest.approx(0.02, rel=0.15)
    assert learner.speed.prefill_seconds(400, 0) == pytest.approx(0.1, rel=0.1)


def test_one_odd_short_prompt_proves_little() -> None:
    learner = SpeedLearner(SMALL)
    learner.learn(
        Sample(
            cached=0,
            prompt=500,
            prompt_ms=1000 * SMALL.prefill_seconds(500, 0),
            predicted=0,
            predicted_ms=0.0,
        )
    )

    learner.learn(
        Sample(
            cached=800, prompt=20, prompt_ms=100_000.0, predicted=0, predicted_ms=0.0
        )
    )

    usual = SMALL.prefill_seconds(20, 800)
    assert learner.speed.prefill_seconds(20, 800) < 3 * usual
