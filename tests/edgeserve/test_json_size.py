"""Bodies of very many values are refused before they are decoded."""

from __future__ import annotations

import json

import pytest

from edgeserve.errors import BadRequest
from edgeserve.json_edit import MOST_VALUES
from edgeserve.openai import read


@pytest.mark.parametrize("unit", ["{}", "1", '""', "[]", '",\\"",""'])
def test_more_values_than_can_be_held_are_refused(unit: str) -> None:
    body = f'{{"messages":[{",".join([unit] * (MOST_VALUES + 2))}]}}'

    with pytest.raises(BadRequest, match="more than 1000000 values"):
        read(body.encode())


def test_keys_count_too() -> None:
    body = "{" + '"a":1,' * (MOST_VALUES + 1) + '"b":1}'

    with pytest.raises(BadRequest, match="more than 1000000 values"):
        read(body.encode())


def test_commas_and_quotes_within_a_text_do_not_count() -> None:
    body = json.dumps({"prompt": ',", ' * MOST_VALUES})

    assert read(body.encode())[1] == body.encode()


def test_what_is_no_json_ends_soon_as_well() -> None:
    with pytest.raises(BadRequest):
        read(b'""' * (4 * MOST_VALUES) + b"," * (MOST_VALUES + 1))
