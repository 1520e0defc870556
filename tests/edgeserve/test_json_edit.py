import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeserve.errors import BadRequest
from edgeserve.json_edit import edited

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
objects = st.dictionaries(st.text() | st.sampled_from(["model", "lora"]), json_values)


def encodable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@given(
    objects.filter(encodable),
    objects.filter(encodable),
    st.lists(st.sampled_from(["lora", "id_slot", "model"])),
)
def test_an_edit_is_what_a_dictionary_would_do(
    body: dict[str, Any], put: dict[str, Any], drop: list[str]
) -> None:
    expected = {k: v for k, v in {**body, **put}.items() if k not in drop}

    result = edited(json.dumps(body).encode(), put=put, drop=drop)

    assert json.loads(result) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"12345678901234567890123456789012345678901234567890",
        b"1.10000000000000000000",
        b"1E400",
        b'"\\u00e9\\/\\ud83d\\ude00"',
        b'{"b" : [1 ,2 ] , "b":3}',
        '"日本\u2028"'.encode(),
    ],
)
def test_values_that_are_not_named_keep_their_very_bytes(value: bytes) -> None:
    body = b'{ "model":"a",  "unknown" : ' + value + b" }"

    assert value in edited(body, put={"model": "b"})


def test_a_key_is_found_however_it_is_spelt() -> None:
    body = b'{"id\\u005fslot": 3, "x": 1}'

    assert json.loads(edited(body, put={}, drop=["id_slot"])) == {"x": 1}


def test_of_a_key_that_stands_twice_the_last_one_counts() -> None:
    body = b'{"model": "a", "x": 1, "x": 2}'

    assert json.loads(edited(body, put={"model": "b"})) == {"model": "b", "x": 2}


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b'"x"', b'{"a":1', b'{"a":1}}', b'{"a":tru}', b"\xff\xfe", b"null",
     b'{"a":' + b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        edited(body, put={})
