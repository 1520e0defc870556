"""Which peer sends which piece: decisions, without peers."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from node.pulls.pieces import PieceQueue, largest_group


def test_peers_get_different_pieces_as_far_as_the_window_goes() -> None:
    pieces = PieceQueue(count=9, window=3)

    chosen = [pieces.choose("a") for _ in range(4)]
    assert pieces.came(0)
    pieces.wrote(0)

    assert chosen == [0, 1, 2, None]
    assert pieces.choose("a") == 3


def test_a_piece_that_all_wait_for_is_asked_of_a_second_peer_once() -> None:
    pieces = PieceQueue(count=9, window=2)
    slow, quick = pieces.choose("slow"), pieces.choose("quick")
    pieces.came(1)

    assert (slow, quick) == (0, 1)
    assert pieces.choose("quick") == 0
    assert pieces.choose("third") is None
    assert pieces.came(0)
    assert not pieces.came(0)  # the slow one's


def test_what_failed_or_was_damaged_is_asked_for_again() -> None:
    pieces = PieceQueue(count=2, window=9)
    pieces.choose("a")
    pieces.choose("b")
    pieces.failed("a", 0)
    pieces.came(1)
    pieces.rejected(1)

    assert [pieces.choose("c"), pieces.choose("c")] == [0, 1]


@given(st.integers(1, 12), st.integers(1, 6), st.integers())
def test_every_piece_is_written_once_whatever_peers_do(
    count: int, window: int, seed: int
) -> None:
    pieces = PieceQueue(count=count, window=window)
    random = Random(seed)  # noqa: S311 - no secret depends on it
    asked, held, written = list[tuple[str, int]](), set[int](), list[int]()
    while not pieces.over:
        peer = random.choice("abc")
        if (chosen := pieces.choose(peer)) is not None:
            asked.append((peer, chosen))
        if asked and _answered(pieces, random, *asked[0]):
            held.add(asked[0][1])
        del asked[:1]
        while pieces.written in held:
            written.append(pieces.written)
            pieces.wrote(pieces.written)

    assert written == list(range(count))


def _answered(pieces: PieceQueue, random: Random, peer: str, number: int) -> bool:
    """Have a peer answer; returns whether the piece is new and right."""
    if random.random() < 0.2:
        pieces.failed(peer, number)
        return False
    right = random.random() < 0.8
    new = pieces.came(number)
    if new and not right:
        pieces.rejected(number)
    return new and right


def test_of_peers_that_disagree_the_most_count() -> None:
    said = {"a": (1, 2), "b": (1, 3), "c": (1, 2)}

    assert largest_group(said) == ["a", "c"]
    assert largest_group(dict[str, tuple[int, ...]]()) == []
