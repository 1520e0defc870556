"""Request limits: caps on grammars, schemas and lists that exhaust an engine. Pure.

llama.cpp accepts nearly everything: half a million brackets in a `grammar` overflow its
stack, `minItems: 1e9` and `repeat_last_n: 2147483647` take all memory, a thousand
optional parts block the engine for minutes. Only fields present in a request are
checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from balancer.validation.grammar_text import (
    GBNF,
    KIB,
    REGEX,
    Caps,
    check_order,
    check_repeated,
    check_text,
    within,
)
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import BadRequest
from edgeserve.openai import RequestFields
from edgeserve.wire import MALFORMED

BREAKERS = 32
"""Most `dry_sequence_breakers`: llama.cpp searches its vocabulary for each."""

SAMPLERS = 64
PRESERVED = 1000
TRIGGERS = 100
TRIGGER_TYPES = range(4)
"""Kinds of `grammar_triggers`; llama.cpp aborts at another."""

TRIGGER_LENGTH = 1000
"""Characters of an expression that is matched at every place of an answer."""

PROBABILITIES = 1000
"""Most probabilities per token; the whole vocabulary takes gigabytes."""

LOOK_BACK = 1_000_000
"""Most tokens to look back at: llama.cpp allocates memory for all of them."""

SCHEMAS = (
    "json_schema", "response_format", "tools", "functions", "text", "output_config",
    "output_format",
)  # fmt: skip
LISTS = {
    "stop": 0,
    "stop_sequences": 0,
    "logit_bias": 0,
    "preserved_tokens": PRESERVED,
    "grammar_triggers": TRIGGERS,
    "dry_sequence_breakers": BREAKERS,
    "samplers": SAMPLERS,
}
"""Most entries; 0 for the limit in the settings."""

NUMBERS = {
    "n_probs": PROBABILITIES,
    "top_logprobs": PROBABILITIES,
    "logprobs": PROBABILITIES,
    "repeat_last_n": LOOK_BACK,
    "penalty_last_n": LOOK_BACK,
    "dry_penalty_last_n": LOOK_BACK,
    "n_prev": LOOK_BACK,
}
_EMPTY = re.compile(rb"\[\s*\]")

NAMES = ("grammar", *SCHEMAS, *LISTS, *NUMBERS)
_named = attrgetter(*NAMES)
_NOTHING = _named(RequestFields())

COUNTS = frozenset((
    "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties",
    "minContains", "maxContains",
))  # fmt: skip
BOUNDS = (("minItems", "maxItems"), ("minLength", "maxLength"))
BRANCHES = frozenset(("anyOf", "oneOf", "allOf", "prefixItems", "items", "type"))
"""Keywords whose lists are alternatives or sequences."""

DATA = frozenset(("enum", "const", "default", "examples", "required", "type"))
"""Keywords whose lists contain no schemas."""

TEXTS = {"pattern": REGEX, "grammar": GBNF}

CACHED = 32
"""Schemas that are known to have passed; at most 8 MiB of them."""

Place = tuple["Place | None", str | int]
"""A place in a schema: the place of its parent, and its key or index there."""


CAPS = Caps()


def caps_of(settings: BalancerSettings) -> Caps:
    """Take the caps from the settings."""
    return Caps(
        size=settings.grammar_limit_kib * KIB,
        depth=settings.grammar_depth,
        repeats=settings.grammar_repeats,
        choices=settings.grammar_choices,
        entries=settings.list_entries,
        media_hosts=frozenset(host.lower() for host in settings.media_hosts),
    )


def check_messages(raw: bytes | msgspec.Raw) -> None:
    """Raise BadRequest where there is no message; llama.cpp would make up an answer.

    An engine refuses what lacks the field, in words of its own.
    """
    if raw and (bytes(memoryview(raw)[:1]) != b"[" or _EMPTY.fullmatch(raw)):
        raise BadRequest("`messages` must be a list with at least one message")


def check(request: RequestFields, caps: Caps) -> None:
    """Raise BadRequest where a limit is exceeded, with the limit and the place."""
    found = _named(request)
    if found == _NOTHING:
        return
    given = {name: raw for name, raw in zip(NAMES, found, strict=True) if raw}
    if grammar := given.get("grammar"):
        _check_grammar(grammar, caps)
    schemas = {name: bytes(given[name]) for name in SCHEMAS if name in given}
    size = sum(map(len, schemas.values()))
    within(size, caps.size, " and ".join(schemas), "bytes", "grammar_limit_kib")
    for name, schema in schemas.items():
        _check_schema(schema, name, caps)
    for name, raw in given.items():
        if name in LISTS:
            _check_list(raw, name, LISTS[name] or caps.entries)
            if name == "grammar_triggers":
                _check_triggers(raw, caps)
        elif name in NUMBERS:
            _check_number(_decoded(raw, name), name, NUMBERS[name], "")


def _decoded(raw: bytes | msgspec.Raw, name: str) -> Any:
    try:
        return msgspec.json.decode(raw)
    except MALFORMED as error:
        raise BadRequest(f"{name} is not valid: {error}") from error


def _check_number(value: object, where: str, most: int, setting: str) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool) and value > most:
        limit = f" (`{setting}`)" if setting else ""
        raise BadRequest(f"{where} is {value:.15g}; it may be {most} at most{limit}")


def _check_list(raw: msgspec.Raw, name: str, most: int) -> None:
    if len(raw) > most:  # an entry takes at least one byte
        value = _decoded(raw, name)
        if isinstance(value, list | dict | str):
            setting = "" if LISTS[name] else "list_entries"
            within(len(value), most, name, "entries", setting)


def _check_triggers(raw: msgspec.Raw, caps: Caps) -> None:
    triggers: Any = _decoded(raw, "grammar_triggers")
    for number, each in enumerate(triggers if isinstance(triggers, list) else []):
        kind: Any = each.get("type") if isinstance(each, dict) else None
        if type(kind) is not int or kind not in TRIGGER_TYPES:
            raise BadRequest(f"grammar_triggers[{number}].type must be 0, 1, 2 or 3")
        value: Any = each.get("value")
        if isinstance(value, str):
            where = f"grammar_triggers[{number}].value"
            within(len(value), TRIGGER_LENGTH, where, "characters", "")
            check_text(value, REGEX, where, caps)


def _check_grammar(raw: msgspec.Raw, caps: Caps) -> None:
    within(len(raw), caps.size, "grammar", "bytes", "grammar_limit_kib")
    grammar = _decoded(raw, "grammar")
    if isinstance(grammar, str):
        check_text(grammar, GBNF, "grammar", caps)


@lru_cache(CACHED)
def _check_schema(raw: bytes, name: str, caps: Caps) -> None:
    """Walk a schema, or a field that contains one, without recursion.

    The requests of a conversation repeat their tools, so results are cached.
    """
    choices = 0
    repeated = 0.0
    for place, value, depth in _walk(_decoded(raw, name), name):
        if depth > caps.depth:
            within(depth, caps.depth, name, "levels of nesting", "grammar_depth")
        _check_bounds(value, place)
        for key, each in value.items():
            if isinstance(each, list):
                choices += _entries(each, key, place, caps)
            elif key in COUNTS or key in TEXTS:
                repeated += _check_leaf(each, key, place, caps)
        if choices > caps.choices:
            where, what = _shown(place), "alternatives up to there"
            within(choices, caps.choices, where, what, "grammar_choices")
    check_repeated(repeated, name, caps)


def _check_bounds(schema: dict[str, Any], place: Place) -> None:
    for low, high in BOUNDS:
        least, most = schema.get(low), schema.get(high)
        if isinstance(least, int | float) and isinstance(most, int | float):
            check_order(least, most, _shown(place))


def _check_leaf(value: object, key: str, place: Place, caps: Caps) -> float:
    """Check a count or a pattern; return the repetitions that it asks for."""
    if isinstance(value, int | float) and value <= caps.repeats:
        return value
    where = f"{_shown(place)}.{key}"
    if key in COUNTS:
        _check_number(value, where, caps.repeats, "grammar_repeats")
    elif isinstance(value, str):
        return check_text(value, TEXTS[key], where, caps)
    return 0


def _entries(value: list[Any], key: str, place: Place, caps: Caps) -> int:
    """Check the length of a list; return how many alternatives it adds."""
    if key == "enum" and len(value) > caps.entries:
        where = f"{_shown(place)}.enum"
        within(len(value), caps.entries, where, "entries", "list_entries")
    return len(value) if key in BRANCHES else 0


def _walk(root: object, name: str) -> Iterator[tuple[Place, dict[str, Any], int]]:
    """Yield every object that may be a schema, with its place and depth."""
    todo: list[tuple[Place, object, int]] = [((None, name), root, 0)]
    while todo:
        place, value, depth = todo.pop()
        if isinstance(value, dict):
            yield place, value, depth
            for key, each in value.items():
                if isinstance(each, dict) or (
                    isinstance(each, list) and key not in DATA
                ):
                    todo.append(((place, key), each, depth + 1))
        elif isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, dict | list):
                    todo.append(((place, number), each, depth + 1))


def _shown(place: Place) -> str:
    """Render a place: `tools[2].function.parameters`."""
    parts: list[str] = []
    above: Place | None = place
    while above is not None:
        above, key = above
        shown = str(key)
        parts.append(f"[{key}]" if isinstance(key, int) else f".{shown[:64]}")
    return "".join(reversed(parts))[1:]
