import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.dialects.prompt import chain
from balancer.prediction.workload import Lengths, Workload


def rng(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - nothing here is secret


def test_tokens_per_byte_follow_what_engines_count() -> None:
    workload = Workload()

    for _ in range(60):
        workload.learn_prompt(400, 1000)

    assert workload.tokens_per_byte == pytest.approx(0.4, rel=0.1)


def test_answers_are_learned_by_kind_of_work() -> None:
    workload, chance = Workload(), rng(1)
    for _ in range(40):
        workload.learn_answer(b"short", None, chance.randint(8, 12))
        workload.learn_answer(b"long", None, chance.randint(800, 1200))

    assert workload.answer_tokens(b"short", None) < 30
    assert workload.answer_tokens(b"long", None) > 500


def test_no_more_is_expected_than_the_caller_allows() -> None:
    assert Workload().answer_tokens(b"", 7) == 7


@given(
    st.lists(st.integers(0, 10**6), max_size=50), st.one_of(st.none(), st.integers(0))
)
def test_an_expected_answer_has_at_least_one_token(
    answers: list[int], budget: int | None
) -> None:
    workload = Workload()
    for tokens in answers:
        workload.learn_answer(b"", budget, tokens)

    assert workload.answer_tokens(b"", budget) >= 1


def test_a_counted_beginning_is_not_guessed_again() -> None:
    lengths, begun = Lengths(), chain([b"s" * 4000])
    longer = chain([b"s" * 4000, b"q" * 384])
    lengths.learn(begun.blocks[-1], 1700)

    assert lengths.of(longer, tokens_per_byte=0.25) == 1700 + 400 * 0.25
