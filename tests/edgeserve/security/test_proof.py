"""Two machines prove to each other that they hold one token, and give nothing away."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeserve.security.proof import (
    HELLO,
    MAC,
    REFUSAL,
    REPLY,
    ClientProof,
    OtherToken,
    ProofError,
    ServerProof,
    fleet_key,
    registration_mac,
)

OURS, OLD, THEIRS = (fleet_key(each * 20) for each in "abc")
MINE, OTHERS = "11" * 32, "22" * 32


def proved(client: ClientProof, server: ServerProof) -> None:
    server.check(client.answer(server.reply(client.hello)))


def test_two_holders_of_one_token_accept_each_other() -> None:
    proved(ClientProof([OURS], MINE), ServerProof([OURS], MINE))


def test_while_a_token_is_replaced_any_common_one_is_enough() -> None:
    proved(ClientProof([OURS, OLD], MINE), ServerProof([OLD], MINE))
    proved(ClientProof([OLD], MINE), ServerProof([OURS, OLD], MINE))


def test_a_machine_with_another_token_is_refused_by_both() -> None:
    client = ClientProof([OURS], MINE)
    with pytest.raises(OtherToken):
        ServerProof([THEIRS], MINE).reply(client.hello)
    with pytest.raises(OtherToken):
        client.answer(REFUSAL)


def test_a_machine_between_the_two_can_pass_nothing_on() -> None:
    client, server = ClientProof([OURS], OTHERS), ServerProof([OURS], MINE)
    with pytest.raises(ProofError):
        client.answer(server.reply(client.hello))


def test_a_recorded_exchange_proves_nothing_later() -> None:
    client, server = ClientProof([OURS], MINE), ServerProof([OURS], MINE)
    reply = server.reply(client.hello)
    last = client.answer(reply)
    again = ServerProof([OURS], MINE)
    again.reply(client.hello)
    with pytest.raises(ProofError):
        again.check(last)
    with pytest.raises(ProofError):
        ClientProof([OURS], MINE).answer(reply)


def test_a_proof_cannot_be_sent_back_to_the_one_that_made_it() -> None:
    client, server = ClientProof([OURS], MINE), ServerProof([OURS], MINE)
    reply = server.reply(client.hello)
    with pytest.raises(ProofError):
        server.check(reply[-MAC:])


def test_no_message_holds_the_token_or_a_key() -> None:
    client, server = ClientProof([OURS], MINE), ServerProof([OURS], MINE)
    reply = server.reply(client.hello)
    sent = client.hello + reply + client.answer(reply)
    for secret in (b"a" * 20, OURS.proof, OURS.registration):
        assert secret not in sent
    assert "proof" not in repr(OURS)


def test_without_a_first_message_no_last_one_is_accepted() -> None:
    with pytest.raises(ProofError):
        ServerProof([OURS], MINE).check(b"")
    with pytest.raises(ProofError):
        ServerProof([OURS], MINE).check(bytes(MAC))


@given(st.binary(max_size=2 * HELLO))
def test_no_first_bytes_break_the_server(data: bytes) -> None:
    with pytest.raises(ProofError):
        ServerProof([OURS], MINE).reply(data)


@given(st.binary(max_size=2 * REPLY))
def test_no_reply_breaks_the_client(data: bytes) -> None:
    with pytest.raises(ProofError):
        ClientProof([OURS], MINE).answer(data)


@given(st.integers(0, HELLO + REPLY + MAC - 1), st.integers(1, 255))
def test_one_changed_byte_in_any_message_is_noticed(at: int, change: int) -> None:
    def changed(message: bytes, begin: int) -> bytes:
        if not begin <= at < begin + len(message):
            return message
        place = at - begin
        flipped = bytes((message[place] ^ change,))
        return message[:place] + flipped + message[place + 1 :]

    def exchange() -> None:
        client, server = ClientProof([OURS], MINE), ServerProof([OURS], MINE)
        reply = changed(server.reply(changed(client.hello, 0)), HELLO)
        server.check(changed(client.answer(reply), HELLO + REPLY))

    with pytest.raises(ProofError):
        exchange()


def test_a_registration_is_proved_in_both_directions_and_once() -> None:
    made = registration_mac(OURS, "node", "nonce", "http://a:1")
    assert made == registration_mac(OURS, "node", "nonce", "http://a:1")
    others = {
        registration_mac(OURS, "balancer", "nonce", "http://a:1"),
        registration_mac(OURS, "node", "later", "http://a:1"),
        registration_mac(OURS, "node", "nonce", "http://b:1"),
        registration_mac(THEIRS, "node", "nonce", "http://a:1"),
    }
    assert made not in others
    assert len(others) == 4


def test_a_nonce_cannot_hold_a_part_of_what_is_registered() -> None:
    """A false balancer chooses the nonce that it gives to a node."""
    chosen = "nonce\0http://evil:1\n"
    signed = registration_mac(OURS, "node", chosen, "http://a:1\nid")

    wanted = registration_mac(OURS, "node", "nonce", "http://evil:1\n\0http://a:1\nid")
    assert signed != wanted
