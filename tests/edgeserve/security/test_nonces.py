from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgeserve.security.nonces import VALID_SECONDS, Nonces


class Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


def test_a_nonce_counts_once() -> None:
    nonces = Nonces()
    nonce, other = nonces.issue(), nonces.issue()
    assert nonces.is_fresh(nonce)
    nonces.use(nonce)

    assert not nonces.is_fresh(nonce)
    assert nonces.is_fresh(other)


def test_a_nonce_counts_for_a_short_time_and_is_then_forgotten() -> None:
    clock = Clock()
    nonces = Nonces(clock)
    nonce, used = nonces.issue(), nonces.issue()
    nonces.use(used)
    clock.now += VALID_SECONDS

    assert not nonces.is_fresh(nonce)
    assert not nonces.is_fresh(used)
    nonces.use(nonces.issue())
    assert len(nonces._used) == 1


def test_many_that_are_issued_end_no_other() -> None:
    nonces = Nonces()
    first = nonces.issue()
    for _ in range(2000):
        nonces.issue()

    assert nonces.is_fresh(first)


@given(st.text())
def test_what_was_not_issued_here_does_not_count(text: str) -> None:
    nonces = Nonces()
    assert not nonces.is_fresh(text)
    assert not nonces.is_fresh(f"{nonces.issue()}{text or '0'}")
    assert not nonces.is_fresh(Nonces().issue())
