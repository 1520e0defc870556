import json

import pytest

from balancer.dialects.timings import timings_in
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.speed import Speed, guess
from balancer.probes.calibration import LONG, SHORT, Probe, sample


@pytest.mark.parametrize("probe", [SHORT, LONG])
def test_a_probe_leaves_no_trace_in_the_cache(probe: Probe) -> None:
    body = json.loads(probe.body("model:Q4"))

    assert body["cache_prompt"] is False
    assert body["n_predict"] == probe.answer
    assert len(body["prompt"].split()) == probe.prompt


def test_a_short_probe_takes_a_slow_machine_no_longer_than_it_must() -> None:
    pi = Speed(prefill=1 / 25, attention=0.0, decode=1 / 6, slowdown=0.3)

    assert SHORT.seconds(pi) == pytest.approx(32 / 25 + 4 / 6, rel=0.01)
    assert SHORT.seconds(pi) < LONG.seconds(pi) / 3


@pytest.mark.parametrize("indent", [None, 1])
def test_its_answer_teaches_the_speed(indent: int | None) -> None:
    answer = json.dumps(
        {
            "content": "…",
            "timings": {
                "prompt_n": 129,
                "prompt_ms": 1290.0,
                "predicted_n": 16,
                "predicted_ms": 750.0,
                "prompt_per_second": 100.0,
            },
        },
        indent=indent,
    ).encode()
    learner = SpeedLearner(guess("model-7b", 4, on_gpu=False))

    found = timings_in(answer)
    assert found is not None
    learner.learn(sample(found))

    assert learner.speed.prefill_seconds(129, 0) == pytest.approx(1.29, rel=0.01)
    assert learner.speed.token_seconds(1) == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"timings": 3}', b"[1"])
def test_an_answer_that_says_nothing_teaches_nothing(answer: bytes) -> None:
    assert timings_in(answer) is None
