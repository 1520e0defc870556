import json

import pytest

from balancer import calibration
from balancer.speed import Learner, guess


def test_the_probe_leaves_no_trace_in_the_cache() -> None:
    body = json.loads(calibration.body("model:Q4"))

    assert body["cache_prompt"] is False
    assert body["n_predict"] == 16
    assert len(body["prompt"].split()) == 128


def test_its_answer_teaches_the_speed() -> None:
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
        }
    ).encode()
    learner = Learner(guess("model-7b", 4, on_gpu=False))

    found = calibration.timings(answer)
    assert found is not None
    learner.learn(calibration.sample(found))

    assert learner.speed.prefill_seconds(129, 0) == pytest.approx(1.29, rel=0.01)
    assert learner.speed.token_seconds(1) == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"timings": 3}', b"[1"])
def test_an_answer_that_says_nothing_teaches_nothing(answer: bytes) -> None:
    assert calibration.timings(answer) is None
