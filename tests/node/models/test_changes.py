from __future__ import annotations

from pathlib import Path

from node.models.changes import FolderState, Listing, settled, step

A, B, BELOW = Path("/m/a.gguf"), Path("/m/b.gguf"), Path("/m/disk/c.gguf")
ONE, TWO = (1, 10, 7), (2, 20, 7)


def listing(*files: tuple[Path, tuple[int, ...]], unread: str = "") -> Listing:
    return Listing(dict(files), frozenset({Path(unread)} if unread else ()))


def state(*files: tuple[Path, tuple[int, ...]]) -> FolderState:
    return FolderState(dict(files))


def test_a_file_counts_once_two_looks_see_the_same() -> None:
    first = settled(listing(), listing((A, ONE)), state())
    second = settled(listing((A, ONE)), listing((A, ONE)), first)

    assert first == FolderState(arriving=frozenset({A}))
    assert second == state((A, ONE))


def test_a_copy_in_progress_does_not_hold_up_other_files() -> None:
    now = settled(listing((A, ONE), (B, ONE)), listing((A, TWO), (B, ONE)), state())

    assert now.files == {B: ONE}
    assert now.arriving == {A}


def test_while_a_file_is_replaced_the_old_one_counts() -> None:
    known = state((A, ONE))
    writing = settled(listing((A, ONE)), listing((A, TWO)), known)
    written = settled(listing((A, TWO)), listing((A, TWO)), writing)

    assert writing == FolderState({A: ONE}, arriving=frozenset({A}))
    assert written.files == {A: TWO}


def test_a_file_is_gone_when_two_looks_miss_it() -> None:
    known = state((A, ONE))
    missed = settled(listing((A, ONE)), listing(), known)
    gone = settled(listing(), listing(), missed)

    assert missed.files == {A: ONE}
    assert gone.files == {}


def test_what_is_below_an_unreadable_folder_is_taken_to_be_there() -> None:
    known, blind = state((A, ONE), (BELOW, ONE)), listing((A, ONE), unread="/m/disk")
    found = settled(blind, blind, known)

    assert found.files == {A: ONE, BELOW: ONE}
    assert found.differs(known)  # so that the fault is reported


def test_an_engine_stops_when_a_part_of_its_model_is_gone() -> None:
    started = ((A, ONE), (B, ONE))

    assert step(started, (A, B), state((A, ONE)), None) == "stop"


def test_an_engine_restarts_with_another_file_and_with_a_new_projector() -> None:
    started = ((A, ONE),)

    assert step(started, (A,), state((A, TWO)), ((A, TWO),)) == "restart"
    now = state((A, ONE), (B, ONE))
    assert step(started, (A,), now, ((A, ONE), (B, ONE))) == "restart"
    assert step(started, (A,), state((A, ONE)), started) == "keep"


def test_an_engine_goes_on_when_its_file_was_replaced_by_a_broken_one() -> None:
    assert step(((A, ONE),), (A,), state((A, TWO)), None) == "keep"
