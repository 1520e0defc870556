"""Rules of llama.cpp's cache, from `server-context.cpp` and `server-task.cpp`."""

import pytest

from balancer.dialects.prompt import Prompt, chain
from balancer.simulate.cache import Cache, Place, SlotContent


def text(*parts: bytes) -> SlotContent:
    prompt: Prompt = chain(parts)
    return SlotContent(prompt, [end // 4 for end in prompt.ends])


SYSTEM = b"s" * 1200


def a_cache(slots: int, host_tokens: int = 0) -> Cache:
    return Cache([Place() for _ in range(slots)], host_tokens)


def served(cache: Cache, content: SlotContent, now: float) -> tuple[int, int]:
    slot, spared = cache.take(content, now)
    cache.release(slot, content, now)
    return slot, spared


def test_a_conversation_finds_its_slot_and_all_it_held() -> None:
    cache = a_cache(2)
    first = text(SYSTEM, b"one" * 100)
    slot, spared = served(cache, first, 1.0)
    served(cache, text(b"x" * 900), 2.0)

    again = cache.take(text(SYSTEM, b"one" * 100, b"two" * 100), 3.0)

    assert spared == 0
    assert again == (slot, first.tokens)


def test_a_prefix_in_a_busy_slot_is_of_no_use() -> None:
    cache = a_cache(2)
    cache.take(text(SYSTEM, b"one"), 1.0)

    slot, spared = cache.take(text(SYSTEM, b"two"), 2.0)

    assert (slot, spared) == (1, 0)


def test_a_tenth_of_the_prompt_is_not_similar_enough() -> None:
    cache = a_cache(2)
    served(cache, text(b"a" * 400, b"tail" * 50), 1.0)

    slot, _ = cache.take(text(b"a" * 400, b"other" * 1000), 2.0)

    assert slot == 1


def test_without_similarity_the_oldest_slot_goes() -> None:
    cache = a_cache(3)
    for now, word in enumerate((b"a", b"b", b"c")):
        served(cache, text(word * 400), float(now))

    assert cache.take(text(b"d" * 400), 9.0) == (0, 0)


def test_what_a_slot_lost_is_lost_without_a_host_cache() -> None:
    cache = a_cache(1)
    served(cache, text(b"a" * 400), 1.0)
    served(cache, text(b"b" * 400), 2.0)

    assert cache.take(text(b"a" * 400), 3.0) == (0, 0)


def test_with_one_it_comes_back_and_leaves_the_cache() -> None:
    cache = a_cache(1, host_tokens=10_000)
    first = text(b"a" * 400)
    served(cache, first, 1.0)
    served(cache, text(b"b" * 400), 2.0)

    _, spared = cache.take(text(b"a" * 400, b"more" * 50), 3.0)

    assert spared == first.tokens
    assert first not in cache.host


def test_a_long_entry_is_not_spent_on_its_beginning() -> None:
    cache = a_cache(1, host_tokens=100_000)
    served(cache, text(SYSTEM, b"long" * 3000), 1.0)
    served(cache, text(b"b" * 400), 2.0)

    assert cache.take(text(SYSTEM, b"new" * 10), 3.0)[1] == 0


def test_the_oldest_entries_make_room() -> None:
    cache = a_cache(1, host_tokens=250)
    for now, word in enumerate((b"a", b"b", b"c", b"d")):
        served(cache, text(word * 400), float(now))

    assert sum(entry.tokens for entry in cache.host) <= 250
    assert cache.take(text(b"a" * 400), 9.0)[1] == 0
    assert len(cache.host) == 2


def test_one_token_is_always_read() -> None:
    cache = a_cache(1)
    same = text(SYSTEM)
    served(cache, same, 1.0)

    assert cache.take(same, 2.0)[1] == same.tokens - 1


def test_a_pinned_request_takes_its_slot_whatever_lies_elsewhere() -> None:
    cache = a_cache(2)
    served(cache, text(SYSTEM), 1.0)

    assert cache.take(text(SYSTEM, b"q"), 2.0, pinned=1) == (1, 0)


def test_no_idle_slot_is_an_error() -> None:
    cache = a_cache(1)
    cache.take(text(SYSTEM), 1.0)

    with pytest.raises(LookupError):
        cache.take(text(b"x"), 2.0)
