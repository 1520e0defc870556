"""What a key may do a minute and at once, counted without a clock."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from balancer.clients.keys import ClientKey, ModelNotAllowed, checked_models
from balancer.clients.limits import RateLimited, RateLimits, duration


class Scene:
    """Limits with a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.limits = RateLimits(lambda: self.now)
        self.fields: dict[str, str] = {}

    def send(self, key: ClientKey, tokens: int = 0) -> None:
        self.fields = {}
        with self.limits.entering(key, self.fields):
            pass
        self.limits.charge(key, tokens)

    def refused(self, key: ClientKey) -> RateLimited:
        with pytest.raises(RateLimited) as refusal:
            self.send(key)
        return refusal.value


@pytest.fixture
def scene() -> Scene:
    return Scene()


def a_key(**fields: Any) -> ClientKey:
    return ClientKey(**{"id": "1f", "name": "laptop"} | fields)


def test_a_key_without_limits_is_told_of_none(scene: Scene) -> None:
    for _ in range(100):
        scene.send(a_key(), 10_000)

    assert scene.fields == {}


def test_requests_are_counted_down_told_and_refused(scene: Scene) -> None:
    key = a_key(requests_per_minute=2)
    scene.send(key)
    assert scene.fields == {
        "x-ratelimit-limit-requests": "2",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "30s",
    }
    scene.send(key)

    refusal = scene.refused(key)

    assert (refusal.status, refusal.code, refusal.kind) == (
        429,
        "rate_limit_exceeded",
        "requests",
    )
    assert refusal.headers()["retry-after"] == "30"
    assert scene.fields["x-ratelimit-remaining-requests"] == "0"


def test_retry_after_is_when_it_works(scene: Scene) -> None:
    key = a_key(requests_per_minute=7)
    for _ in range(7):
        scene.send(key)

    seconds = scene.refused(key).retry_after
    assert seconds is not None
    scene.now += seconds - 1.0
    scene.refused(key)
    scene.now += 1.0
    scene.send(key)


def test_a_bucket_holds_one_minute_however_long_nothing_came(scene: Scene) -> None:
    key = a_key(requests_per_minute=2)
    scene.send(key)
    scene.now += 86_400

    scene.send(key)
    scene.send(key)
    scene.refused(key)


def test_tokens_are_charged_afterwards_and_what_is_too_much_is_waited_for(
    scene: Scene,
) -> None:
    key = a_key(tokens_per_minute=600)
    scene.send(key, tokens=1200)

    refusal = scene.refused(key)

    assert refusal.kind == "tokens"
    assert refusal.retry_after == 61
    assert scene.fields["x-ratelimit-remaining-tokens"] == "0"
    assert scene.fields["x-ratelimit-reset-tokens"] == "2m0s"
    scene.now += 61
    scene.send(key)


def test_a_refused_request_costs_nothing(scene: Scene) -> None:
    key = a_key(requests_per_minute=60)
    for _ in range(60):
        scene.send(key)
    for _ in range(100):
        scene.refused(key)

    scene.now += 1
    scene.send(key)


def test_requests_at_once_come_free_however_one_ends(scene: Scene) -> None:
    key = a_key(at_once=2)
    with ExitStack() as stack:
        stack.enter_context(scene.limits.entering(key, {}))
        with pytest.raises(ZeroDivisionError), scene.limits.entering(key, {}):
            raise ZeroDivisionError
        stack.enter_context(scene.limits.entering(key, {}))

        assert "2 requests at once" in str(scene.refused(key))
    scene.send(key)


def test_keys_do_not_share_their_limits(scene: Scene) -> None:
    scene.send(a_key(requests_per_minute=1))

    scene.send(a_key(id="2f", requests_per_minute=1))
    scene.refused(a_key(requests_per_minute=1))


def test_a_changed_limit_counts_at_once_and_what_was_taken_stays_taken(
    scene: Scene,
) -> None:
    for _ in range(5):
        scene.send(a_key(requests_per_minute=5))
    scene.refused(a_key(requests_per_minute=5))

    scene.send(a_key(requests_per_minute=6))
    scene.refused(a_key(requests_per_minute=6))
    scene.send(a_key())


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0ms"),
        (0.02, "20ms"),
        (1.5, "1.5s"),
        (59.9, "59.9s"),
        (360, "6m0s"),
        (3723, "1h2m3s"),
    ],
)
def test_times_are_written_as_openai_does(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("allowed", "asked", "may"),
    [
        ((), "anything", True),
        ((), "", True),
        (("small",), "small", True),
        (("small",), "small:Q4_1", True),
        (("Small.GGUF",), "small", True),
        (("small:*",), "small:Q8_0", True),
        (("small:q4_1",), "small:Q4_1", True),
        (("small:Q4_1",), "small:Q8_0", False),
        (("small:Q4_1",), "small", False),
        (("small",), "smaller", False),
        (("small",), "", False),
        (("small", "*"), "big", True),
    ],
)
def test_a_model_is_allowed_by_its_name(
    allowed: tuple[str, ...], asked: str, *, may: bool
) -> None:
    assert a_key(models=checked_models(allowed)).allows(asked) == may


def test_a_refused_model_says_which_are_allowed() -> None:
    assert "small, tiny, not 'big'" in str(ModelNotAllowed("big", ("small", "tiny")))
    assert "name one" in str(ModelNotAllowed("", ("small",)))
