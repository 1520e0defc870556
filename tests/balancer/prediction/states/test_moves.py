from __future__ import annotations

from typing import Any

import pytest

from balancer.dialects.prompt import chain
from balancer.prediction.prefix_cache import CachedPrefix
from balancer.prediction.states.known import KnownState, KnownStates
from balancer.prediction.states.moves import DISTRUST, STEP, MoveSpeeds, StepSpeed
from edgeserve.orders.caches import CacheFit, SavedState

A, B = ("a", "left"), ("b", "right")
FIT = CacheFit(content="c" * 32, build="b1", kv_type="f16", flash_attention=True)
OTHER = CacheFit(content="c" * 32, build="b2", kv_type="f16", flash_attention=True)
MB = 1e6


def move(**changes: Any) -> Any:
    usual: dict[str, Any] = {
        "source": A, "target": B, "tokens": 1000.0, "size": 20 * MB, "saves": True,
        "read": 10.0, "why": "",
    }  # fmt: skip
    return MoveSpeeds().planned(**usual | changes)


def test_a_move_that_spares_seconds_is_made() -> None:
    assert move().pays


def test_a_move_over_a_slow_link_is_not_made() -> None:
    assert not move(read=2.0).pays


def test_a_move_that_spares_little_is_not_made() -> None:
    assert not move(read=move().predicted * 1.2).pays


def test_what_is_there_already_crosses_no_link_and_is_not_saved() -> None:
    here = move(source=B, saves=False)

    assert (here.save, here.link) == (0.0, 0.0)
    assert here.predicted < move().predicted


def test_a_move_says_what_it_was_compared_with() -> None:
    shown = move().shown()

    assert (shown["from"], shown["to"]) == ("left", "right")
    assert shown["predicted_seconds"] < shown["read_anew_seconds"] == 10.0


def test_a_link_is_learned_from_what_crossed_it() -> None:
    speeds = MoveSpeeds()
    speeds.link("a", "b").learn(50 * MB, 1.0 + STEP)

    assert speeds.link("a", "b").seconds(50 * MB) == pytest.approx(1.0 + STEP)
    assert speeds.link("b", "a").seconds(50 * MB) > 1.0 + STEP


def test_a_step_that_took_no_time_has_a_speed() -> None:
    speed = StepSpeed(1.0)
    speed.learn(100.0, 0.0)

    assert speed.seconds(100.0) < 1.0


def test_states_that_spare_nothing_are_left_alone_until_one_does() -> None:
    speeds = MoveSpeeds()
    for _ in range(DISTRUST):
        assert speeds.trusted(FIT)
        speeds.judge(FIT, 1000.0, 0.0)

    assert not speeds.trusted(FIT)
    assert speeds.trusted(OTHER)
    speeds.judge(FIT, 1000.0, 999.0)
    assert speeds.trusted(FIT)


def known(*parts: bytes, fit: CacheFit = FIT, tokens: float = 50.0) -> KnownState:
    content = CachedPrefix(chain(parts), tokens)
    state = SavedState(
        name="ab" * 8, fit=fit, tokens=50, size=1, sha256="0" * 64, pieces=()
    )
    return KnownState(content, state, {"a"})


def test_of_the_states_of_a_conversation_the_longest_is_found() -> None:
    states = KnownStates()
    short, long = known(b"s", b"u1"), known(b"s", b"u1", b"a1", b"u2")
    states.put(long)
    states.put(short)

    found = states.longest(chain((b"s", b"u1", b"a1", b"u2", b"a2", b"u3")), FIT)

    assert found is long
    assert states.longest(chain((b"s", b"u1", b"other")), FIT) is short
    assert states.longest(chain((b"x",)), FIT) is None
    assert states.earlier(long.content, FIT) == [short]


def test_a_state_of_another_engine_is_not_found() -> None:
    states = KnownStates()
    states.put(known(b"s", fit=OTHER))

    assert states.longest(chain((b"s", b"u1")), FIT) is None


def test_a_state_counts_as_saved_only_with_all_that_the_slot_holds() -> None:
    states = KnownStates()
    states.put(known(b"s"))

    assert states.get(CachedPrefix(chain((b"s",)), 50.0), FIT) is not None
    assert states.get(CachedPrefix(chain((b"s",)), 70.0), FIT) is None


def test_a_state_that_no_node_has_is_forgotten() -> None:
    states, state = KnownStates(), known(b"s")
    states.put(state)

    states.lost(state, "a")

    assert len(states) == 0
