"""JSON schemas: find errors in a schema before an engine sees it. Pure.

Engines differ on invalid schemas: some refuse them, others ignore them and answer in
prose.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_TYPES = {"string", "number", "integer", "boolean", "null", "object", "array"}
_ONE = ("items", "additionalProperties", "contains", "propertyNames")
_LIST = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_BOUNDS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)
_INVALID = ("missing ),", "unbalanced parenthesis", "unterminated character set")
"""Python's messages for patterns that are wrong in every regex dialect."""

Json = Mapping[str, Any]


def schema_error(schema: object) -> str | None:
    """Return what is wrong with a schema, None where nothing is found."""
    if not isinstance(schema, dict):
        return "it is no object"
    for where, each in _all(schema):
        if isinstance(each, bool):
            continue
        if not isinstance(each, dict):
            return f"{where} is no schema"
        for check in _CHECKS:
            if problem := check(each):
                return f"{where}: {problem}"
        if not _resolves(schema, each.get("$ref")):
            return f"{where}: `$ref` leads nowhere in it"
    return None


def _all(root: object) -> Iterator[tuple[str, Any]]:
    """Yield every schema inside a schema, with its place."""
    waiting: list[tuple[str, Any]] = [("#", root)]
    while waiting:
        where, each = waiting.pop()
        yield where, each
        if isinstance(each, dict):
            waiting += _inner(where, each)


def _inner(where: str, schema: Json) -> Iterator[tuple[str, Any]]:
    for key in _ONE:
        value = schema.get(key)
        if isinstance(value, list):
            yield from ((f"{where}/{key}/{n}", each) for n, each in enumerate(value))
        elif value is not None:
            yield f"{where}/{key}", value
    for key in _LIST:
        if isinstance(value := schema.get(key), list):
            yield from ((f"{where}/{key}/{n}", each) for n, each in enumerate(value))
    for key in _NAMED:
        if isinstance(value := schema.get(key), dict):
            yield from ((f"{where}/{key}/{n}", each) for n, each in value.items())


def _types(schema: Json) -> str | None:
    kind = schema.get("type", "object")
    kinds = kind if isinstance(kind, list) and kind else [kind]
    wrong = [each for each in kinds if not isinstance(each, str) or each not in _TYPES]
    return f"there is no type {wrong[0]!r}" if wrong else None


def _containers(schema: Json) -> str | None:
    for key in _NAMED:
        if not isinstance(schema.get(key, {}), dict):
            return f"`{key}` must be an object"
    for key in (*_LIST, "enum"):
        if key in schema and not (isinstance(schema[key], list) and schema[key]):
            return f"`{key}` must be a list that is not empty"
    required: Any = schema.get("required") or []
    if not isinstance(required, list) or not all(isinstance(n, str) for n in required):
        return "`required` must be a list of names"
    return None


def _bounds(schema: Json) -> str | None:
    for least, most in _BOUNDS:
        low, high = schema.get(least, 0), schema.get(most, float("inf"))
        for key, value in ((least, low), (most, high)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                return f"`{key}` must be a number"
        if least in schema and low > high:
            return f"`{least}` is more than `{most}`"
    return None


def _pattern(schema: Json) -> str | None:
    pattern = schema.get("pattern", "")
    if not isinstance(pattern, str):
        return "`pattern` must be a string"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        if str(error).startswith(_INVALID):
            return f"`pattern` is no expression: {error}"
    return None


_CHECKS: tuple[Callable[[Json], str | None], ...] = (
    _types,
    _containers,
    _bounds,
    _pattern,
)


def _resolves(root: Any, reference: object) -> bool:
    if reference is None:
        return True
    if not isinstance(reference, str) or not reference.startswith("#"):
        return False
    found = root
    for step in filter(None, reference[1:].split("/")):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            return False
    return True
