from math import inf

from hypothesis import given
from hypothesis import strategies as st

from balancer.dialects.prompt import chain
from balancer.prediction.returns.conversations import Chances, Returns


def chats(
    returns: Returns,
    *,
    go_on: bool,
    silent: float,
    count: int = 300,
    client: str = "",
) -> None:
    now = 0.0
    for number in range(count):
        first = chain([b"s", b"%d" % number])
        returns.answered(first, client, now)
        now += silent
        if go_on:
            returns.arrived(chain([b"s", b"%d" % number, b"answer", b"more"]), now)


def chance(returns: Returns, paused: float) -> float:
    """Return the chance for all conversations, if none loses its slot."""
    return Chances(returns, 1.0, inf).to_be_missed("another client", paused)


def test_conversations_that_go_on_are_expected_to() -> None:
    returns = Returns()

    chats(returns, go_on=True, silent=20.0)

    assert chance(returns, 5.0) > 0.9


def test_conversations_that_never_do_are_not() -> None:
    returns = Returns()

    chats(returns, go_on=False, silent=20.0)

    assert chance(returns, 5.0) < 0.2


def test_a_pause_that_has_not_ended_counts_as_far_as_it_has_come() -> None:
    returns = Returns()
    for number in range(50):
        returns.answered(chain([b"s", b"%d" % number]), "", 0.0)

    returns.answered(chain([b"later"]), "", 60.0)

    assert chance(returns, 0.0) < 0.75 * chance(Returns(), 0.0)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 3000)), max_size=60))
def test_the_chance_is_a_probability_that_falls_with_silence(
    history: list[tuple[bool, float]],
) -> None:
    returns = Returns()
    for go_on, silent in history:
        chats(returns, go_on=go_on, silent=silent, count=1)

    chances = [chance(returns, seconds) for seconds in (0, 1, 5, 60, 300, 5000)]

    assert all(0 <= each <= 1 for each in chances)
    assert chances[-1] == 0


def test_waiting_for_a_quick_return_gains_what_it_saves_less_the_wait() -> None:
    returns = Returns()
    chats(returns, go_on=True, silent=1.5)

    gain = returns.all.gain(0.0, saved=5.0, idle=1.0)

    assert 3.0 < gain < 4.5


def test_waiting_for_a_slow_return_gains_nothing() -> None:
    returns = Returns()
    chats(returns, go_on=True, silent=100.0)

    assert returns.all.gain(0.0, saved=5.0, idle=1.0) == 0.0


def test_a_client_is_judged_by_its_own_pauses() -> None:
    returns = Returns()
    chats(returns, go_on=True, silent=100.0, client="person")
    chats(returns, go_on=True, silent=0.5, client="agent")

    person, agent = returns.of("person"), returns.of("agent")

    assert person.gain(0.0, saved=5.0, idle=1.0) == 0.0
    assert agent.gain(0.0, saved=5.0, idle=1.0) > 3.0


def test_very_many_clients_and_conversations_are_not_all_remembered() -> None:
    returns = Returns()

    for number in range(9000):
        returns.answered(chain([b"%d" % number]), str(number), number / 1000)
        returns.arrived(chain([b"%d" % number, b"a", b"b"]), number / 1000)
        returns.answered(chain([b"x%d" % number]), str(number), number / 1000)

    assert len(returns._clients) <= 1024
    assert len(returns._since) <= 4096


def test_a_conversation_that_goes_on_brings_along_what_it_has_waited() -> None:
    returns = Returns()
    returns.answered(chain([b"s", b"one"]), "", 0.0, waited=7.0)

    assert returns.arrived(chain([b"s", b"one", b"answer", b"more"]), 1.0) == 7.0
    assert returns.arrived(chain([b"s", b"new"]), 1.0) is None
