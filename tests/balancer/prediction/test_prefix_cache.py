from hypothesis import given
from hypothesis import strategies as st

from balancer.dialects.prompt import Prompt, chain, common
from balancer.prediction.prefix_cache import CachedPrefix, PrefixCacheIndex

texts = st.lists(st.sampled_from([b"a", b"b", b"c" * 700]), min_size=1, max_size=5)
prompts = texts.map(chain)


def held(prompt: Prompt, answer: float = 0.0) -> CachedPrefix:
    return CachedPrefix(prompt, prompt.size / 4 + answer, answer)


@given(st.lists(st.tuples(st.integers(0, 4), prompts), max_size=25), prompts)
def test_every_slot_is_found_at_the_depth_it_shares(
    puts: list[tuple[int, Prompt]], prompt: Prompt
) -> None:
    cache_index = PrefixCacheIndex()
    cache_index.add(5)
    for place, each in puts:
        cache_index.put(place, held(each))

    found = {
        place: depth
        for depth, mask in cache_index.levels(prompt)
        for place in range(5)
        if mask & (1 << place)
    }

    expected = {
        place: common(each.prompt, prompt)
        for place, each in enumerate(cache_index.contents)
        if each is not None and common(each.prompt, prompt)
    }
    assert found == expected


@given(st.lists(st.tuples(st.integers(0, 2), prompts), max_size=15))
def test_what_was_forgotten_leaves_nothing_behind(
    puts: list[tuple[int, Prompt]],
) -> None:
    cache_index = PrefixCacheIndex()
    places = cache_index.add(3)
    for place, each in puts:
        cache_index.put(place, held(each))

    cache_index.remove(places)

    assert not cache_index._holders
    assert not cache_index.idle


def test_the_room_of_an_engine_that_left_is_used_again() -> None:
    cache_index = PrefixCacheIndex()
    places = cache_index.add(3)
    cache_index.remove(places)

    assert cache_index.add(3) == places


def test_those_that_share_most_come_first() -> None:
    cache_index = PrefixCacheIndex()
    cache_index.add(2)
    cache_index.put(0, held(chain([b"system"])))
    cache_index.put(1, held(chain([b"system", b"question"])))

    levels = cache_index.levels(chain([b"system", b"question", b"answer"]))

    assert levels == [(2, 0b10), (1, 0b01)]


def test_an_answer_counts_only_where_the_prompt_goes_on() -> None:
    prompt = chain([b"system", b"question"])
    entry = held(prompt, answer=50)

    assert entry.shared(2, prompt) == entry.tokens - 50
    assert entry.shared(2, chain([b"system", b"question", b"a" * 200])) == entry.tokens


def test_an_answer_that_comes_back_cut_short_does_not_count() -> None:
    entry = held(chain([b"system", b"question"]), answer=500)

    came_back = chain([b"system", b"question", b"without its reasoning", b"more"])

    assert entry.shared(2, came_back) == entry.tokens - 500
