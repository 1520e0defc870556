"""A machine gets the fleet token once a person has seen one code on both sides."""

from __future__ import annotations

import re
import secrets
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeserve.security.join import (
    APPROVED,
    DENIED,
    EXPIRED,
    KNOCK,
    MAGIC,
    NONCE,
    OPENING,
    VERDICT,
    BalancerJoin,
    JoinError,
    NodeJoin,
    Refused,
    join_code,
    verdict,
)
from edgeserve.security.tokens import LONGEST

MINE, OTHERS = "11" * 32, "22" * 32
TOKEN = "fleet-token-of-the-tests"


def met(fingerprint: str = MINE) -> tuple[BalancerJoin, NodeJoin]:
    """Return both sides after their exchange; the balancer sees that certificate."""
    node = NodeJoin(MINE)
    balancer = BalancerJoin(fingerprint, node.knock)
    node.check(balancer.reveal(node.answer(balancer.opening)))
    return balancer, node


def test_both_sides_show_one_code_and_the_node_gets_the_token() -> None:
    balancer, node = met()

    assert balancer.code == node.code
    assert re.fullmatch(r"\d{3}-\d{3}", node.code)
    assert node.token(verdict(APPROVED, TOKEN)) == TOKEN


def test_each_exchange_has_a_code_of_its_own() -> None:
    assert len({met()[1].code for _ in range(50)}) > 45


def test_another_certificate_gives_another_code() -> None:
    balancer, node = met(OTHERS)

    assert balancer.code != node.code


def test_the_code_covers_certificate_and_both_nonces() -> None:
    one, two = b"1" * NONCE, b"2" * NONCE

    codes = [
        join_code(fingerprint, first, second)
        for fingerprint in (MINE, OTHERS)
        for first in (one, two)
        for second in (one, two)
    ]
    assert len(set(codes)) == len(codes)


def test_a_machine_in_the_middle_cannot_choose_its_nonces_so_that_codes_agree() -> None:
    """It must bind itself to one nonce, and send the other, before it sees ours."""
    agreed = 0
    for _ in range(300):
        node = NodeJoin(MINE)
        balancer = BalancerJoin(OTHERS, node.knock)
        to_node = secrets.token_bytes(NONCE)
        of_node = node.answer(MAGIC + node.knock + sha256(to_node).digest())
        balancer.reveal(of_node)  # the best it has: any nonce is a guess
        tried = secrets.token_bytes(NONCE)  # once it knows the balancer's nonce
        with pytest.raises(JoinError, match="bound"):
            node.check(tried)
        agreed += node.check(to_node) == balancer.code
    assert agreed == 0


def test_a_balancer_does_not_reveal_twice_for_one_commitment() -> None:
    balancer, _ = met()

    with pytest.raises(JoinError):
        balancer.reveal(bytes(NONCE))


def test_a_node_allows_one_exchange() -> None:
    balancer, node = met()

    with pytest.raises(JoinError):
        node.answer(balancer.opening)


def test_a_stranger_that_was_not_asked_does_not_use_up_the_exchange() -> None:
    node = NodeJoin(MINE)
    with pytest.raises(JoinError, match="not asked"):
        node.answer(BalancerJoin(MINE, bytes(KNOCK)).opening)

    assert not node.begun
    assert node.answer(BalancerJoin(MINE, node.knock).opening)


def test_a_token_counts_only_after_the_codes() -> None:
    with pytest.raises(JoinError):
        NodeJoin(MINE).token(verdict(APPROVED, TOKEN))


@pytest.mark.parametrize(
    ("state", "why"), [(DENIED, "denied"), (EXPIRED, "not approved in time")]
)
def test_a_refusal_has_a_reason(state: bytes, why: str) -> None:
    _, node = met()

    with pytest.raises(Refused, match=why):
        node.token(verdict(state))


@pytest.mark.parametrize(
    "token",
    ["", "short", "a" * 15, "with a space in the token", "líne" * 9, "a\n" * 20],
)
def test_what_cannot_be_a_token_is_not_taken(token: str) -> None:
    _, node = met()

    with pytest.raises(JoinError):
        node.token(verdict(APPROVED, token))


def test_all_messages_have_one_size() -> None:
    assert len(BalancerJoin(MINE, bytes(KNOCK)).opening) == OPENING
    sizes = {len(verdict(APPROVED, "a" * n)) for n in (16, 100, LONGEST)}
    assert sizes | {len(verdict(DENIED))} == {VERDICT}
    with pytest.raises(JoinError):
        verdict(APPROVED, "a" * (LONGEST + 1))


@given(st.binary(max_size=VERDICT + 9), st.booleans())
def test_no_message_breaks_a_node(message: bytes, begins_well: bool) -> None:
    node = NodeJoin(MINE)
    start = MAGIC + node.knock if begins_well else b""
    for step in (node.answer, node.check, node.token):
        try:
            step((start if step == node.answer else b"") + message)
        except (JoinError, Refused):
            continue
