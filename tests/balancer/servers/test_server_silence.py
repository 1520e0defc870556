"""Only idle silence counts: answers that are on their way, or begin, excuse."""

from __future__ import annotations

from balancer.servers.silence import READING_LOOKS, Silence

NONE = frozenset[object]()


def test_an_idle_servers_silence_counts() -> None:
    silence = Silence()
    silence.look(set(), 3)

    assert not silence.excused(set(), 3, NONE)


def test_an_answer_on_its_way_since_before_excuses_as_long_as_it_is() -> None:
    silence, open_ = Silence(), {"a", "b"}
    silence.look(open_, 0)

    for _ in range(10):
        assert silence.excused(open_, 0, {"b"})
        silence.look(open_, 0)
    assert not silence.excused({"a"}, 0, NONE)


def test_a_request_without_an_answer_excuses_for_a_while() -> None:
    silence = Silence()
    silence.look({"a"}, 0)

    for _ in range(READING_LOOKS):
        assert silence.excused({"a"}, 0, NONE)
        silence.look({"a"}, 0)
    assert not silence.excused({"a"}, 0, NONE)


def test_a_request_that_is_sent_meanwhile_shows_nothing() -> None:
    silence = Silence()
    silence.look({"a"}, 0)

    assert silence.excused({"a", "b"}, 0, NONE)
    silence.look({"b"}, 0)
    assert not silence.excused({"b"}, 0, NONE)


def test_an_answer_that_begins_meanwhile_excuses_and_so_does_what_is_open_then() -> (
    None
):
    silence = Silence()
    silence.look(set(), 0)

    assert silence.excused({"a"}, 1, NONE)
    silence.look({"a"}, 1)
    assert silence.excused({"a"}, 1, NONE)
    assert not silence.excused(set(), 1, NONE)


def test_a_silence_that_ended_leaves_nothing_behind() -> None:
    silence = Silence()
    silence.look({"a"}, 0)
    silence.end()
    silence.look(set(), 5)

    assert not silence.excused({"a"}, 5, NONE)
