"""JSON schemas that make sense, and those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.validation.schema import schema_error

PERSON: dict[str, Any] = {
    "$defs": {"name": {"type": ["string", "null"], "pattern": r"^\p{L}+$"}},
    "type": "object",
    "properties": {
        "name": {"$ref": "#/$defs/name"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1},
        "self": {"$ref": "#"},
        "either": {"anyOf": [{"const": 1}, {"type": "string", "minLength": 1}]},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "schema", [{}, PERSON, {"items": True}, {"title": "type"}, {"properties": {}}]
)
def test_what_makes_sense_passes(schema: dict[str, Any]) -> None:
    assert schema_error(schema) is None


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (5, "no object"),
        ("x", "no object"),
        (True, "no object"),
        ({"type": "strng"}, "'strng'"),
        ({"type": ["string", "nope"]}, "'nope'"),
        ({"type": []}, "no type"),
        ({"type": {}}, "no type"),
        ({"properties": [1]}, "`properties`"),
        ({"properties": {"a": 5}}, "#/properties/a is no schema"),
        ({"items": {"items": {"type": "x"}}}, "#/items/items"),
        ({"anyOf": []}, "`anyOf`"),
        ({"enum": []}, "`enum`"),
        ({"required": "a"}, "`required`"),
        ({"$ref": "#/$defs/x"}, "leads nowhere"),
        ({"$ref": "https://example.org/schema"}, "leads nowhere"),
        ({"pattern": "("}, "`pattern`"),
        ({"pattern": 3}, "`pattern`"),
        ({"minLength": "x"}, "`minLength`"),
        ({"minimum": 5, "maximum": 3}, "more than"),
    ],
)
def test_what_makes_none_is_named(schema: object, why: str) -> None:
    assert why in (schema_error(schema) or "")


def test_a_schema_may_be_as_deep_as_it_likes() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"items": deep}

    assert schema_error(deep) is None
