"""Slots that are kept for the conversations in them."""

import pytest
from msgspec.structs import replace

from balancer.dialects.prompt import chain
from balancer.routing.affinity import idle_price
from tests.balancer.engine_models import LAPTOP, Fleet, a_prompt

HELD = b"question" * 500
"""A thousand tokens, seven seconds to read again."""


def after(pause: float, times: int = 60) -> Fleet:
    """A fleet whose conversations have gone on after such a pause."""
    fleet = Fleet(one=(LAPTOP, 2))
    returns = fleet.dispatcher.workload("model").returns
    for number in range(times):
        at = -1000.0 + number
        returns.answered(chain([b"%d" % number]), "", at)
        returns.arrived(chain([b"%d" % number, b"answer", b"more"]), at + pause)
    fleet.dispatcher.order.work = 5.0
    return fleet


def busy(fleet: Fleet) -> None:
    """Occupy one of the two slots, and hold a conversation in the other."""
    fleet.holds("one", 1, chain([HELD]), since=0.0)
    fleet.holds("one", 0, a_prompt(b"running"), since=-500.0)
    assert fleet.sends(a_prompt(b"running", b"answer", b"more")).slot == 0


def test_a_slot_is_kept_for_a_conversation_that_returns_at_once() -> None:
    fleet = after(0.5)
    busy(fleet)

    fleet.asks(chain([b"stranger" * 100]), 0.1)

    assert fleet.assigns(0.1) == []


def test_the_conversation_that_returns_gets_its_slot_before_those_that_wait() -> None:
    fleet = after(0.5)
    busy(fleet)
    fleet.asks(chain([b"stranger" * 100]), 0.1)
    fleet.assigns(0.1)

    goes_on = fleet.asks(chain([HELD, b"answer", b"more"]), 0.5)

    (assignment,) = fleet.assigns(0.5)
    assert (assignment.request, assignment.slot) == (goes_on, 1)


def test_a_slot_is_not_kept_for_one_that_returns_late() -> None:
    fleet = after(100.0)
    busy(fleet)

    fleet.asks(chain([b"stranger" * 100]), 0.1)

    (assignment,) = fleet.assigns(0.1)
    assert assignment.slot == 1


def test_a_slot_is_not_kept_longer_than_its_conversation_is_expected() -> None:
    fleet = after(0.5)
    busy(fleet)
    fleet.asks(chain([b"stranger" * 100]), 0.1)

    kept = [at for at in (0.5, 4.0, 30.0) if not fleet.assigns(at)]

    assert 0.5 in kept
    assert fleet.waiting == {}


def test_an_idle_slot_costs_less_beside_one_that_works() -> None:
    fleet = Fleet(one=(LAPTOP, 2))
    engine = fleet.engines["one"]
    alone = idle_price(engine)
    fleet.sends(a_prompt(b"running"))

    assert alone == 1.0
    assert idle_price(engine) == pytest.approx(1 - (1 + LAPTOP.slowdown) / 2)


def test_an_idle_slot_has_a_price_where_one_more_sequence_gains_nothing() -> None:
    fleet = Fleet(one=(replace(LAPTOP, slowdown=3.0), 2))
    fleet.sends(a_prompt(b"running"))

    assert idle_price(fleet.engines["one"]) > 0.0
