"""Whatever comes in, in whatever pieces: HTTP begins after the proof and only then.

Bounded here; `make fuzz` tries 10,000 inputs of each kind.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from edgeserve.http.channel.accepting import UNPROVEN, Proving
from edgeserve.security.proof import (
    HELLO,
    KNOWN,
    MAGIC,
    REFUSAL,
    REPLY,
    ClientProof,
    ProofError,
    fleet_key,
)
from tests.edgeserve.http.wire import Wire, sliced
from tests.fakes.tokens import TOKEN, GivenTokens

SERVER, OTHER = "11" * 32, "22" * 32
OURS, THEIRS = fleet_key(TOKEN), fleet_key("a-token-of-another-fleet")
REQUEST = b"GET /edgeserve/v1/events HTTP/1.1\r\nhost: a\r\n\r\n"


class Http(asyncio.Protocol):
    """What would speak HTTP: it keeps what reaches it."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


class Channel(Wire):
    """A transport whose protocol can be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.Protocol | None = None

    def is_closing(self) -> bool:
        return self.closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)


class Port:
    """A connection that was accepted, and what it has become."""

    def __init__(self) -> None:
        self.made = list[Http]()
        self.wire = Channel()
        proving = Proving(GivenTokens(TOKEN), lambda: SERVER)
        self.wire.protocol = proving(self._http)
        self.wire.protocol.connection_made(self.wire)

    def _http(self) -> Http:
        self.made.append(Http())
        return self.made[-1]

    def feed(self, data: bytes) -> None:
        assert self.wire.protocol is not None
        if not self.wire.closed:
            self.wire.protocol.data_received(data)

    def lost(self) -> None:
        assert self.wire.protocol is not None
        self.wire.protocol.connection_lost(None)


pieces = st.sampled_from(["hello", "last", "request", "other", "zeros", "magic"])
plays = st.lists(
    st.tuples(pieces, st.integers(0, 200), st.integers(0, 255)), max_size=6
)
cuts = st.lists(st.integers(1, 90), max_size=12)


def changed(data: bytes, at: int, by: int) -> bytes:
    """Change one byte, or none where `by` is 0."""
    at %= len(data)
    return data[:at] + bytes((data[at] ^ by,)) + data[at + 1 :]


async def played(
    play: list[tuple[str, int, int]], sizes: list[int], fingerprint: str
) -> tuple[Port, bytes]:
    """Play a client that sends its messages in any order, most of them changed."""
    port, client = Port(), ClientProof([OURS], fingerprint)
    last, sent = bytes(32), b""
    for kind, at, by in play:
        if kind == "last" and len(port.wire.written) >= REPLY:
            with suppress(ProofError):
                last = client.answer(port.wire.written[:REPLY])
        data = {
            "hello": client.hello,
            "last": last,
            "request": REQUEST,
            "other": ClientProof([THEIRS], fingerprint).hello,
            "zeros": bytes(HELLO),
            "magic": MAGIC,
        }[kind]
        data = changed(data, at, by)
        sent += data
        for piece in sliced(data, sizes):
            port.feed(piece)
    port.lost()
    right = sent[:HELLO] == client.hello and sent[HELLO:][:32] == last != bytes(32)
    return port, sent[HELLO + 32 :] if right else b"never"


@given(play=plays, sizes=cuts, fingerprint=st.sampled_from([SERVER, OTHER]))
def test_http_begins_after_the_proof_and_gets_just_the_rest(
    play: list[tuple[str, int, int]], sizes: list[int], fingerprint: str
) -> None:
    with asyncio.Runner() as runner:
        port, rest = runner.run(played(play, sizes, fingerprint))

    got = [each.data for each in port.made]
    assert got == ([] if rest == b"never" else [rest])
    assert len(port.wire.written) <= max(REPLY, len(UNPROVEN)) + REPLY


@given(data=st.binary(max_size=400), sizes=cuts)
def test_no_bytes_made_up_begin_http(data: bytes, sizes: list[int]) -> None:
    async def fed(start: bytes) -> Port:
        port = Port()
        for piece in sliced(start + data, sizes):
            port.feed(piece)
        port.lost()
        return port

    with asyncio.Runner() as runner:
        for start in (b"", MAGIC, ClientProof([OURS], SERVER).hello):
            assert runner.run(fed(start)).made == []


@given(head=st.sampled_from([b"", KNOWN, REFUSAL[:1]]), data=st.binary(max_size=200))
def test_no_reply_made_up_is_answered(head: bytes, data: bytes) -> None:
    for client in (ClientProof([OURS], SERVER), ClientProof([], SERVER)):
        for reply in (head + data, head + data + bytes(REPLY), client.hello + data):
            with suppress(ProofError):
                raise AssertionError(client.answer(reply))
