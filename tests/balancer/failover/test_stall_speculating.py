"""A speculating engine sends several tokens at once; it is neither late nor stuck."""

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from balancer.failover.stall import (
    FACTOR,
    UNLEARNED_SECONDS,
    Progress,
    most_at_once,
    slowest,
)
from balancer.failover.watchdog import Watchdog
from balancer.prediction.learning import SpeedLearner
from balancer.prediction.speed import Sample, Speed
from edgeserve.wire import Launch

STEP = 6.0
"""Seconds for one token of a large model on a slow machine, without speculation."""

READ = 0.005
PLAIN = Launch(slots=1, context=4096, batch=32, threads=4)
KEY = ("pi", "large:Q4_K_M")


def drafting(tokens: int) -> Launch:
    return msgspec.structs.replace(
        PLAIN, speculative="draft-simple", draft="small:Q4_0", draft_tokens=tokens
    )


FROM_TEXT = msgspec.structs.replace(PLAIN, speculative="ngram-mod")


def watchdog(launch: Launch, seconds: float) -> Watchdog:
    """A watchdog that has learned of many answers with so many seconds a token."""
    learner = SpeedLearner(
        Speed(prefill=READ, attention=0.0, decode=STEP, slowdown=0.0)
    )
    for _ in range(20):
        sample = Sample(
            cached=0,
            prompt=200,
            prompt_ms=200 * READ * 1000,
            predicted=120,
            predicted_ms=120 * seconds * 1000,
        )
        learner.learn(sample)
    model = SimpleNamespace(
        learner=learner,
        batch=launch.batch,
        per_read=learner.speed.prefill,
        per_token=learner.speed.token_seconds(1),
    )
    engines = {KEY: SimpleNamespace(launch=launch)}
    state: Any = SimpleNamespace(
        predictive=SimpleNamespace(fleet_model={KEY: model}),
        breakers=SimpleNamespace(engine=engines.get),
    )
    awake: Any = SimpleNamespace(time=lambda: 0.0)
    return Watchdog(state, awake)


@pytest.mark.parametrize(
    ("launch", "step"),
    [
        # A draft model's tokens take a third of the large one's.
        (drafting(3), STEP * (1 + 3 / 3)),
        (drafting(6), STEP * (1 + 6 / 3)),
        # Guesses from the text cost nothing; 65 tokens are checked as a prompt is.
        (FROM_TEXT, STEP + 65 * READ),
    ],
)
async def test_wrong_guesses_after_right_ones_are_no_stall(
    launch: Launch, step: float
) -> None:
    most = most_at_once(launch)
    pace = watchdog(launch, step / most).pace(KEY)
    progress, now = Progress(), 0.0
    progress.showed("head", now)

    for arrived in [most] * 3 + [1] * 20:
        now += step
        assert progress.phase == "reading" or now < progress.stuck_at(pace)
        for _ in range(arrived):
            progress.showed("text", now)

    # One that writes nothing more is found out no later than an unknown one.
    assert progress.stuck_at(pace) <= now + max(UNLEARNED_SECONDS, 8 * step)


async def test_a_pause_is_as_suspicious_as_ever_where_nothing_is_guessed() -> None:
    plain = watchdog(PLAIN, STEP).pace(KEY)

    assert plain.token == pytest.approx(4 * STEP + PLAIN.batch * READ, rel=0.01)
    assert slowest(0.05, most_at_once(PLAIN)) == 0.2


@pytest.mark.parametrize("mean", [0.01, 0.1, 1.0, 5.0])
def test_bursts_never_give_more_patience_than_an_unknown_engine_has(
    mean: float,
) -> None:
    usual = slowest(mean, 1)

    assert usual <= slowest(mean, 65) <= max(usual, UNLEARNED_SECONDS / FACTOR)
