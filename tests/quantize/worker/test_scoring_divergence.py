import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantize.worker import scoring

logits = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4)


def rows(*values: list[float]) -> scoring.Floats:
    return np.array(values, np.float32)


def test_log_softmax_is_a_distribution_even_for_huge_logits() -> None:
    found = scoring.log_softmax(rows([1e4, 1e4, 0.0]))

    assert np.exp(found).sum() == pytest.approx(1)
    assert found[0, 0] == pytest.approx(math.log(0.5))


@given(logits)
def test_packing_keeps_what_is_likely_to_a_thousandth_of_a_nat(
    values: list[float],
) -> None:
    log_probs = scoring.log_softmax(rows(values))

    back = scoring.pack(log_probs).unpack()

    likely = log_probs > log_probs.max() - scoring.RANGE
    assert np.abs(back - log_probs)[likely].max() < 1e-3


def test_divergence_of_two_coins_is_the_textbooks() -> None:
    base = np.log(rows([0.5, 0.5]))
    other = np.log(rows([0.9, 0.1]))

    (found,) = scoring.kl_divergence(base, other)

    assert found == pytest.approx(0.5 * math.log(5 / 9) + 0.5 * math.log(5))


@given(logits, logits)
def test_divergence_is_zero_from_itself_and_never_negative(
    one: list[float], two: list[float]
) -> None:
    a, b = scoring.log_softmax(rows(one)), scoring.log_softmax(rows(two))

    assert scoring.kl_divergence(a, a)[0] == 0
    assert scoring.kl_divergence(a, b)[0] > -1e-5


def test_mean_and_standard_error() -> None:
    mean, error = scoring.mean_and_error(np.array([1.0, 3.0] * 50))

    assert mean == 2
    assert error == pytest.approx(1 / math.sqrt(99))
    assert scoring.mean_and_error(np.array([1.0, 3.0])) == (2, 0)


def test_a_uniform_guess_has_the_vocabularys_size_as_perplexity() -> None:
    value, error = scoring.perplexity(np.full(100, math.log(32)))

    assert value == pytest.approx(32)
    assert error == pytest.approx(0, abs=1e-6)


def test_the_ratio_is_paired_so_that_the_texts_spread_cancels() -> None:
    base = np.random.default_rng(1).exponential(3, 500)

    mean, error = scoring.log_ratio(base + 0.1, base)

    assert mean == pytest.approx(0.1)
    assert error == pytest.approx(0, abs=1e-6)


def test_the_change_of_probability_is_a_root_mean_square() -> None:
    base, other = np.log([2.0, 2.0]), np.log([4.0, 4.0])

    assert scoring.root_mean_square(other, base) == pytest.approx(0.25)
