from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.groups.cache import WeightCache
from tests.edgeserve.damage import EVERY_WAY, damage


@pytest.fixture
def cache(tmp_path: Path) -> WeightCache:
    cache = WeightCache(tmp_path, most=1000, free=0)
    assert cache.prepare(100)
    return cache


def put(cache: WeightCache, name: str, size: int, used: int = 0) -> Path:
    path = cache.folder / "rpc" / name
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def test_weights_that_a_head_has_loaded_are_kept_for_the_next_start(
    cache: WeightCache,
) -> None:
    whole = put(cache, "a", 100)
    cache.keep()

    assert cache.prepare(100)
    assert whole.exists()


def test_weights_of_a_load_that_broke_off_are_never_used(cache: WeightCache) -> None:
    whole = put(cache, "a", 100)
    cache.keep()
    broken = put(cache, "b", 50)
    whole.write_bytes(bytes(99))
    cache.prepare(100)

    assert not broken.exists()
    assert not whole.exists()


def test_the_oldest_weights_make_room_for_others(cache: WeightCache) -> None:
    old, new = put(cache, "old", 400, used=1), put(cache, "new", 400, used=2)
    cache.keep()
    cache.prepare(500)

    assert not old.exists()
    assert new.exists()


def test_weights_beyond_the_bound_are_not_cached(cache: WeightCache) -> None:
    assert not cache.prepare(1001)


def test_a_full_disk_gets_no_weights(tmp_path: Path) -> None:
    assert not WeightCache(tmp_path, free=2**60).prepare(1)


@pytest.mark.parametrize("way", EVERY_WAY)
def test_damage_costs_the_cache_and_nothing_else(cache: WeightCache, way: str) -> None:
    path = put(cache, "a", 100)
    cache.keep()
    damage(cache.folder / "whole.json", way)
    cache.prepare(100)

    assert not path.exists()
