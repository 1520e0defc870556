from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeserve.orders.caches import CacheFit, SavedState
from edgeserve.orders.pulls import PIECE
from node.caches.errors import DamagedState, NoRoom, NoSuchState
from node.caches.eviction import HALF_LIFE, OLDEST, KeptState, leaving
from node.caches.store import StateStore, fits

FIT = CacheFit(content="c" * 32, build="b1", kv_type="f16", flash_attention=True)


def a_saved_state(folder: Path, model: Path) -> None:
    """Keep a state of a model in a folder."""
    store = StateStore(folder, 1000)
    store.open()
    part = folder / "new.part"  # not `begun`: the disk may be a small one
    part.write_bytes(b"a" * 100)
    state = store.sums(part, name="ab" * 8, fit=FIT, tokens=9)
    store.add(part, state, model)


@dataclass
class Kept:
    """A store in a folder, with a model, at a time that tests set."""

    root: Path
    limit: int = 10_000
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.model = self.root / "model.gguf"
        self.model.touch()
        self.open()

    def open(self) -> None:
        """Open it as the next process does."""
        folder = self.root / "caches"
        self.store = StateStore(folder, self.limit, lambda: self.now)
        self.store.open()

    def saved(self, name: str, size: int = 1000, worth: float = 1.0) -> SavedState:
        part = self.store.begun()
        part.write_bytes(name.encode() * (size // len(name)))
        state = self.store.sums(
            part, name=name.encode().hex() * 4, fit=FIT, tokens=9, worth=worth
        )
        self.store.add(part, state, self.model)
        return state

    @property
    def files(self) -> list[Path]:
        return sorted(self.store.folder.iterdir())

    def file(self, state: SavedState) -> Path:
        found = self.store.path(state.sha256)
        assert found is not None
        return found


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_states_are_there_for_the_next_process(kept: Kept) -> None:
    state = kept.saved("aa")

    kept.open()

    assert kept.store.all == (state,)
    assert kept.store.verified(state.id) == kept.file(state).name


def test_only_the_owner_reads_them(kept: Kept) -> None:
    kept.saved("aa")

    assert kept.store.folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in kept.files} == {0o600}


def test_a_changed_file_is_refused_and_removed(kept: Kept) -> None:
    state = kept.saved("aa")
    kept.file(state).write_bytes(b"b" * state.size)

    with pytest.raises(DamagedState, match="has been removed"):
        kept.store.verified(state.id)

    assert (kept.store.all, kept.files) == ((), [])


@pytest.mark.parametrize("harm", ["shorter", "gone", "nonsense", "renamed"])
def test_what_was_harmed_between_two_runs_is_removed(kept: Kept, harm: str) -> None:
    state = kept.saved("aa")
    about = kept.file(state).with_suffix(".json")
    match harm:
        case "shorter":
            os.truncate(kept.file(state), 10)
        case "gone":
            kept.file(state).unlink()
        case "nonsense":
            about.write_bytes(b"\0" * 100)
        case _:
            about.rename(about.with_name(f"{'ff' * 8}-{'0' * 16}.json"))

    kept.open()

    assert (kept.store.all, kept.files) == ((), [])


def test_what_was_not_finished_is_removed_at_the_next_start(kept: Kept) -> None:
    kept.store.begun().write_bytes(b"half of a state")

    kept.open()

    assert kept.files == []


def test_states_go_with_their_model(kept: Kept) -> None:
    kept.saved("aa")
    kept.model.unlink()

    kept.store.tidy()

    assert kept.files == []


def test_all_states_stay_within_the_limit(kept: Kept) -> None:
    states = [kept.saved(name, 4000) for name in ("aa", "bb", "cc")]

    assert kept.store.all == tuple(states[1:])
    assert len(kept.files) == 4


def test_a_state_that_is_larger_than_all_may_be_is_refused(kept: Kept) -> None:
    with pytest.raises(NoRoom, match="cache_disk_mib"):
        kept.saved("aa", 20_000)
    with pytest.raises(NoRoom, match="cache_disk_mib"):
        kept.store.begun(20_000)  # before it is fetched


def test_no_path_is_made_of_what_a_request_says(kept: Kept) -> None:
    with pytest.raises(NoSuchState):
        kept.store.verified("../../token")


def test_large_states_have_a_checksum_for_each_piece(kept: Kept) -> None:
    kept.limit = 3 * PIECE
    kept.open()

    assert len(kept.saved("aa", 2 * PIECE + 2).pieces) == 3


def test_a_difference_is_said_in_words() -> None:
    other = CacheFit(content="c" * 32, build="b2", kv_type="q8_0", flash_attention=True)

    assert fits(FIT, FIT) == ""
    assert fits(FIT, other) == "llama.cpp b1, not b2; keys and values in f16, not q8_0"


def a_state(
    name: str, *, size: int = 100, worth: float = 1.0, used: float
) -> KeptState:
    state = SavedState(
        name=name * 8,
        fit=FIT,
        tokens=1,
        size=size,
        sha256="0" * 64,
        pieces=(),
        worth=worth,
    )
    return KeptState(state=state, file="", used=used)


def test_what_spares_least_for_its_size_goes_first() -> None:
    large = a_state("a", size=300, worth=2.0, used=0.0)
    small = a_state("b", worth=2.0, used=0.0)

    assert leaving([small, large], 350, 0.0) == [large]


def test_what_was_not_used_for_long_goes_before_what_is_worth_half_as_much() -> None:
    old = a_state("a", worth=3.0, used=0.0)
    new = a_state("b", worth=1.0, used=2 * HALF_LIFE)

    assert leaving([new, old], 100, 2 * HALF_LIFE) == [old]


def test_what_was_not_used_for_a_week_goes_in_any_case() -> None:
    old = a_state("a", used=0.0)

    assert leaving([old], 10_000, OLDEST + 1) == [old]
