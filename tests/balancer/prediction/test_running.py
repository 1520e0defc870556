"""What running requests cost each other, by llama.cpp's rules for batches."""

from __future__ import annotations

import pytest

from balancer.dialects.prompt import EMPTY
from balancer.dialects.timings import Timings
from balancer.prediction.running import RunningRequest, RunningRequests, delay

BATCH = 9.0


def a_run(slot: int, tokens: float = 256.0) -> RunningRequest:
    return RunningRequest(
        prompt=EMPTY,
        slot=slot,
        tokens=tokens,
        cached=0.0,
        answer=10.0,
        started=0.0,
        reading=tokens / 32,
    )


@pytest.mark.parametrize(
    ("below", "every", "left", "seconds", "why"),
    [
        (0.0, 0.0, 0.0, 0.0, "nothing is read"),
        (3.0, 3.0, 0.0, 3.0, "the prompt below is read first"),
        (0.0, 20.0, 4.0, 4.0 + 8.0, "a batch above runs; its next part fills ours"),
        (0.0, 5.0, 9.0, 5.0, "a batch above runs and is its last"),
        (0.0, 12.0, 9.0, 9.0 + 3.0, "what is left above fills ours"),
        (3.0, 12.0, 9.0, 9.0 + 3.0, "the batch that runs has what is below"),
        (3.0, 3.0, -7.0, 3.0, "a batch is late"),
    ],
)
def test_a_prompt_waits_for_batches(
    below: float, every: float, left: float, seconds: float, why: str
) -> None:
    assert delay(below, every, 1.0, left, BATCH) == pytest.approx(seconds), why


@pytest.mark.parametrize("late", [-0.01, 0.01])
def test_what_others_had_of_a_batch_is_not_taken_for_its_own_time(late: float) -> None:
    """Whichever of the two reports of one batch comes first."""
    load = RunningRequests()
    short, long = a_run(0, 64.0), a_run(1, 192.0)
    for each in (short, long):
        load.start(each)
        load.begins(each, 0.0)

    ends = sorted([(8.0, short, 64.0), (8.0 + late, long, 192.0)], key=lambda e: e[0])
    for now, each, processed in ends:
        load.batched(each, now, processed, 1 / 32)
        if each is short:
            load.wrote(short, now)
    sample = short.sample(9.0, Timings(0, 64, 8000.0, 10, 1000.0), 1.0)

    assert sample.prompt_ms - sample.waited_ms == pytest.approx(2000.0)
    assert not sample.read_alone


def test_a_batch_of_before_does_not_count() -> None:
    load = RunningRequests()
    first, second = a_run(0), a_run(1, 64.0)
    load.start(first)
    load.begins(first, 0.0)
    load.start(second)
    load.begins(second, 7.99)
    load.batched(first, 8.0, 256.0, 1 / 32)

    sample = second.sample(20.0, Timings(0, 64, 2000.0, 10, 1000.0), 1.0)

    assert sample.waited_ms == 0.0
    assert sample.read_alone
