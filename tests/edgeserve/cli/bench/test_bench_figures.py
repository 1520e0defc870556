"""Figures follow from when tokens came, by the definitions of other benchmarks."""

import pytest

from edgeserve.cli.bench.figures import (
    figures,
    markdown,
    quantile,
    shown_seconds,
    table,
)
from edgeserve.cli.bench.load import Sample


def sample(asked: float, first: float, last: float, answer: int = 11) -> Sample:
    return Sample(asked=asked, first=first, last=last, prompt=90, answer=answer)


def test_throughput_counts_from_the_first_request_to_the_last_token() -> None:
    found = figures("a", 2, [sample(10, 11, 14), sample(12, 13, 15)])

    assert found.seconds == 5
    assert found.written_per_second == 22 / 5
    assert found.tokens_per_second == 202 / 5
    assert found.requests_per_second == 2 / 5


def test_the_time_per_token_leaves_out_the_first_one() -> None:
    found = figures("a", 1, [sample(0, 1, 3, answer=11)])

    assert found.token_p50 == pytest.approx(0.2)
    assert found.first_p50 == 1
    assert found.whole_p50 == 3


def test_what_failed_is_counted_with_its_reasons_and_is_no_part_of_the_times() -> None:
    failed = [Sample(asked=0, error="503: busy")] * 2
    found = figures("a", 1, [*failed, sample(0, 1, 2)])

    assert (found.requests, found.failed, found.first_p95) == (3, 2, 1)
    assert found.errors == ("503: busy (2 times)",)


def test_nothing_that_was_answered_gives_zeros() -> None:
    found = figures("a", 1, [Sample(asked=0, error="no")])

    assert found.written_per_second == found.first_p50 == found.token_p95 == 0


def test_quantiles_lie_between_neighbours() -> None:
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile([1, 2], 0.95) == pytest.approx(1.95)
    assert quantile([], 0.5) == 0


def test_columns_that_say_nothing_are_left_out() -> None:
    one = figures("a", 1, [sample(0, 1, 2)])
    two = figures("b", 1, [sample(0, 1, 2), Sample(asked=0, error="no")])

    assert "endpoint" not in table([one])[0]
    assert table([one, two])[0][0] == "endpoint"
    assert table([one, two])[1][1][-1] == "1 of 2"
    assert markdown([one]).count("\n") == 2


def test_times_are_read_in_their_unit() -> None:
    assert [shown_seconds(each) for each in (0.0123, 2.5, 0.0)] == [
        "12.3 ms",
        "2.5 s",
        "",
    ]
