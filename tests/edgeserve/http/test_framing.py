"""Bodies come out whole, however the network cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeserve.errors import BadRequest
from edgeserve.http.framing import Chunked, Framing, Length

pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
cuts = st.lists(st.integers(1, 12), max_size=200)


def encoded(parts: list[bytes], extension: bytes, trailer: bytes) -> bytes:
    chunks = b"".join(b"%X%b\r\n%b\r\n" % (len(p), extension, p) for p in parts)
    return chunks + b"0\r\n" + trailer + b"\r\n"


def fed(framing: Framing, data: bytes, sizes: list[int]) -> tuple[bytes, bytes]:
    """Feed in slices until the body is whole; return it and what came after."""
    body, at = b"", 0
    for size in [*sizes, len(data)]:
        if framing.done or at >= len(data):
            break
        body += framing.feed(data[at : at + size])
        at += size
    return body, framing.excess + data[at:]


@given(
    parts=pieces,
    sizes=cuts,
    after=st.binary(max_size=20),
    extension=st.sampled_from([b"", b";a=b", b" ;x"]),
    trailer=st.sampled_from([b"", b"X: y\r\n", b"A: b\r\nC: d\r\n"]),
)
def test_chunks_come_out_whole_however_they_are_cut(
    parts: list[bytes], sizes: list[int], after: bytes, extension: bytes, trailer: bytes
) -> None:
    framing = Chunked()

    body, rest = fed(framing, encoded(parts, extension, trailer) + after, sizes)

    assert framing.done
    assert (body, rest) == (b"".join(parts), after)


@given(body=st.binary(max_size=100), sizes=cuts, after=st.binary(max_size=20))
def test_a_length_is_kept_to_the_byte(
    body: bytes, sizes: list[int], after: bytes
) -> None:
    framing = Length(len(body))

    assert fed(framing, body + after, sizes) == (body, after)


@given(data=st.binary(max_size=60), sizes=cuts)
def test_what_is_not_chunked_is_refused_or_awaited_the_same_way_in_slices(
    data: bytes, sizes: list[int]
) -> None:
    def outcome(cut: list[int]) -> tuple[bool, bytes] | None:
        framing = Chunked()
        try:
            body, _ = fed(framing, data, cut)
        except BadRequest:
            return None
        return framing.done, body

    whole, sliced = outcome([]), outcome(sizes)

    # Slices may show a body before the fault behind it; they never accept more.
    assert whole == sliced or sliced is None or not sliced[0]


def test_a_chunk_says_at_once_that_it_is_too_long() -> None:
    framing = Chunked()
    framing.feed(b"3\r\nabc")

    with pytest.raises(BadRequest):
        framing.feed(b"d")
