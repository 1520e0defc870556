import json

from hypothesis import given
from hypothesis import strategies as st

from balancer.dialects.prompt import IMAGE_BYTES, chain, common, reach, read

messages = st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=6)


@given(messages)
def test_equal_prompts_have_equal_chains(parts: list[bytes]) -> None:
    assert chain(parts) == chain(list(parts))


@given(messages, messages)
def test_a_conversation_that_goes_on_begins_with_all_of_itself(
    before: list[bytes], after: list[bytes]
) -> None:
    left, right = chain(before), chain(before + after)

    assert common(left, right) == len(left.blocks)
    assert right.messages[: len(left.messages)] == left.messages


@given(messages, st.data())
def test_what_differs_in_one_byte_shares_nothing_from_there_on(
    parts: list[bytes], data: st.DataObject
) -> None:
    which = data.draw(st.integers(0, len(parts) - 1))
    where = data.draw(st.integers(0, len(parts[which]) - 1))
    changed = bytearray(parts[which])
    changed[where] ^= 1
    left, right = (
        chain(parts),
        chain([*parts[:which], bytes(changed), *parts[which + 1 :]]),
    )

    shared = common(left, right)

    begun = sum(map(len, parts[:which])) + where + 16 * which
    assert (left.ends[shared - 1] if shared else 0) <= begun
    assert not set(left.blocks[shared:]) & set(right.blocks[shared:])


@given(messages)
def test_ends_grow_and_the_last_is_the_size(parts: list[bytes]) -> None:
    prompt = chain(parts)

    assert list(prompt.ends) == sorted(set(prompt.ends))
    assert prompt.size == sum(map(len, parts)) + 16 * len(parts)


def test_two_messages_are_not_one() -> None:
    assert common(chain([b"ab", b"c"]), chain([b"a", b"bc"])) == 0


def test_a_long_text_takes_few_blocks() -> None:
    assert len(chain([bytes(128 * 1024)]).blocks) < 100


def test_a_key_makes_the_hashes_its_own() -> None:
    assert common(chain([b"hello"], b"one"), chain([b"hello"], b"two")) == 0


def test_an_image_counts_for_what_it_costs_and_not_for_its_text() -> None:
    image = b'[{"image_url":{"url":"data:image/png;base64,' + b"A" * 500_000 + b'"}}]'

    assert chain([image]).size < 2 * IMAGE_BYTES


def test_order_of_keys_and_spaces_between_them_do_not_matter() -> None:
    tight = b'{"messages":[{"role":"user","content":"hi"}]}'
    loose = b'{ "messages": [ {"content": "hi", "role": "user"} ], "stream": true }'

    assert read(tight) == read(loose)


def test_every_dialect_has_a_prompt() -> None:
    bodies = [
        {"messages": [{"role": "user", "content": "x"}]},
        {"system": "s", "messages": [{"role": "user", "content": [{"text": "x"}]}]},
        {"prompt": "x"},
        {"prompt": [1, 2, 3]},
        {"input": "x", "instructions": "y"},
        {"input": [{"role": "user", "content": "x"}]},
        {"input_prefix": "a", "input_suffix": "b"},
    ]

    assert all(read(json.dumps(body).encode()).blocks for body in bodies)


def test_tools_are_part_of_the_beginning() -> None:
    with_tools = {"tools": [{"a": 1}], "messages": [{"role": "user", "content": "x"}]}
    without = {"messages": [{"role": "user", "content": "x"}]}

    left, right = (read(json.dumps(body).encode()) for body in (with_tools, without))

    assert common(left, right) == 0


@given(st.binary(max_size=500))
def test_whatever_comes_is_read_without_complaint(body: bytes) -> None:
    assert read(body).size >= 0


def test_a_message_of_a_wrong_shape_makes_the_body_one_text() -> None:
    assert len(read(b'{"messages": [{"role": 7}]}').messages) == 1


def test_a_slot_can_hold_the_answer_that_follows_what_is_shared() -> None:
    prompt = chain([b"system", b"question", b"answer", b"more"])

    assert reach(prompt, 2) == prompt.ends[2]
    assert reach(prompt, 4) == prompt.size
