"""What would exhaust an engine is refused before one sees it; what is usual passes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from balancer.validation.grammar_text import Caps
from balancer.validation.limits import check
from edgeserve.config.settings import BalancerSettings
from edgeserve.errors import BadRequest
from edgeserve.openai import read
from tests.balancer.endpoint import CHAT, chat, endpoint
from tests.fakes.node import fake_node


def refusal(**fields: Any) -> str:
    """Return why a body is refused; empty where it is not."""
    try:
        check(read(json.dumps(fields).encode())[0], Caps())
    except BadRequest as error:
        return str(error)
    return ""


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def in_format(schema: object) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


HUGE = {"type": "array", "items": {}, "minItems": 10**9}
JSON_GRAMMAR = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-f]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"""
DEEP = 'root ::= {}"a"{}'

GRAMMARS: dict[str, tuple[str, str]] = {
    "brackets": (DEEP.format("(" * 500_000, ")" * 500_000), "grammar_limit_kib"),
    "fewer brackets": (DEEP.format("(" * 500, ")" * 500), "grammar_depth"),
    "unclosed": ("root ::= " + "(" * 500, "grammar_depth"),
    "repetition": ('root ::= "x"{1,1000000}', "grammar_repeats"),
    "open repetition": ('root ::= "x"{1000000,}', "grammar_repeats"),
    "spaced": ('root ::= "x"{ 1 ,\n# why not\n 1000000 }', "grammar_repeats"),
    "digits without end": (f'root ::= "x"{{1,{"9" * 5000}}}', "grammar_repeats"),
    "optional parts": ("root ::= " + '"a"? ' * 2000, "grammar_choices"),
    "alternatives": ("root ::= " + " | ".join(['"a"'] * 2000), "grammar_choices"),
    "parts that can all be left out": ("root ::= " + '"a"? ' * 200, "grammar_choices"),
    "ways that double": (
        "root ::= r0 r0\n"
        + "\n".join(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(12))
        + '\nr12 ::= "x"?',
        "grammar_choices",
    ),
    "an optional part, often": ('root ::= ("a"?){5000}', "grammar_choices"),
    "many repetitions": ("root ::= " + '"a"{0,2000} ' * 15_000, "grammar_repeats"),
    "a repetition backwards": ('root ::= "a"{3,1}', "from 3 to 1 times"),
    "another dialect": ('%llguidance {}\nstart: "a"{1000000}', "grammar_repeats"),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_grammar_that_would_exhaust_an_engine_is_refused(name: str) -> None:
    grammar, setting = GRAMMARS[name]

    said = refusal(grammar=grammar)
    assert said.startswith("grammar ")
    assert setting in said


@pytest.mark.parametrize(
    ("fields", "place", "setting"),
    [
        ({"json_schema": HUGE}, "json_schema.minItems", "grammar_repeats"),
        ({"json_schema": {"maxItems": 1e9}}, "json_schema.maxItems", "grammar_repeats"),
        ({"json_schema": {"minItems": 1e99}}, "json_schema.minItems", "at most"),
        (
            {"response_format": in_format({"properties": {"a": HUGE}})},
            "response_format.json_schema.schema.properties.a.minItems",
            "grammar_repeats",
        ),
        (
            {"response_format": {"type": "json_object", "schema": HUGE}},
            "response_format.schema.minItems",
            "grammar_repeats",
        ),
        (
            {"tools": [{}, {"function": {"name": "f", "parameters": HUGE}}]},
            "tools[1].function.parameters.minItems",
            "grammar_repeats",
        ),
        (
            {"tools": [{"name": "f", "input_schema": {"anyOf": [{}, HUGE]}}]},
            "tools[0].input_schema.anyOf[1].minItems",
            "grammar_repeats",
        ),
        (
            {"text": {"format": {"type": "json_schema", "schema": HUGE}}},
            "text.format.schema.minItems",
            "grammar_repeats",
        ),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": HUGE}}},
            "output_config.format.schema.minItems",
            "grammar_repeats",
        ),
        (
            {"json_schema": {"$defs": {"a": {"maxLength": 10**12}}}},
            "json_schema.$defs.a.maxLength",
            "grammar_repeats",
        ),
        (
            {"json_schema": {"pattern": "^a{1,1000000}$"}},
            "json_schema.pattern",
            "grammar_repeats",
        ),
        (
            {"json_schema": {"pattern": "(" * 200 + ")" * 200}},
            "json_schema.pattern",
            "grammar_depth",
        ),
        (
            {"json_schema": {"pattern": "^" + "(" * 28 + "a?" + "){2}" * 28 + "$"}},
            "json_schema.pattern",
            "grammar_choices",
        ),
        ({"json_schema": {"pattern": "^a{3,1}$"}}, "json_schema.pattern", "from 3"),
        (
            {"tools": [{"parameters": {"minItems": 3, "maxItems": 1}}]},
            "tools[0].parameters",
            "from 3 to 1 times",
        ),
        (
            {"json_schema": {"items": [{"maxLength": 10_000}] * 50}},
            "json_schema",
            "grammar_repeats",
        ),
        (
            {"grammar_triggers": [{"type": 99, "value": "x"}]},
            "grammar_triggers[0].type",
            "0, 1, 2 or 3",
        ),
        ({"json_schema": nested(200)}, "json_schema", "grammar_depth"),
        (
            {"json_schema": {"enum": list(range(20_000))}},
            "json_schema.enum",
            "list_entries",
        ),
        (
            {"json_schema": {"enum": [f"entry {n}" for n in range(100_000)]}},
            "json_schema",
            "grammar_limit_kib",
        ),
        (
            {"json_schema": {"anyOf": [{"const": n} for n in range(5000)]}},
            "json_schema",
            "grammar_choices",
        ),
        (
            {"tools": [{"d": "x" * 200_000}], "json_schema": {"d": "x" * 200_000}},
            "json_schema and tools",
            "grammar_limit_kib",
        ),
        ({"stop": ["x"] * 100_000}, "stop", "list_entries"),
        ({"stop_sequences": ["x"] * 100_000}, "stop_sequences", "list_entries"),
        ({"logit_bias": [[1, 1]] * 100_000}, "logit_bias", "list_entries"),
        ({"logit_bias": {str(n): 1 for n in range(20_000)}}, "logit_bias", ""),
        ({"dry_sequence_breakers": ["x"] * 100}, "dry_sequence_breakers", ""),
        ({"samplers": ["top_k"] * 1000}, "samplers", ""),
        ({"samplers": "k" * 1000}, "samplers", ""),
        ({"preserved_tokens": ["x"] * 100_000}, "preserved_tokens", ""),
        (
            {"grammar_triggers": [{"type": 2, "value": "(" * 300 + ")" * 300}]},
            "grammar_triggers[0].value",
            "grammar_depth",
        ),
        (
            {"grammar_triggers": [{"type": 2, "value": "(" * 100_000}]},
            "grammar_triggers[0].value",
            "",
        ),
        ({"n_probs": 10**9}, "n_probs", ""),
        ({"top_logprobs": 1e9}, "top_logprobs", ""),
        ({"logprobs": 10**9}, "logprobs", ""),
        ({"repeat_last_n": 2**31 - 1}, "repeat_last_n", ""),
        ({"dry_penalty_last_n": 2**31 - 1}, "dry_penalty_last_n", ""),
    ],
)  # fmt: skip
def test_the_refusal_names_the_place_and_the_limit(
    fields: dict[str, Any], place: str, setting: str
) -> None:
    said = refusal(**fields)

    assert said.startswith(f"{place} ")
    assert setting in said


def test_a_key_that_is_escaped_is_found_all_the_same() -> None:
    body = rb'{"gr\u0061mmar": "root ::= \"x\"{1,1000000}"}'

    with pytest.raises(BadRequest, match="grammar_repeats"):
        check(read(body)[0], Caps())


@pytest.mark.parametrize(
    "fields",
    [
        {"grammar": r'root ::= "((((" [\]({9999999}] # {1,9999999} ((((' + "\n"},
        {"grammar": 'root ::= item{1,100}\nitem ::= [a-z0-9]+ | "x"{3}'},
        {"grammar": JSON_GRAMMAR},
        {"grammar": "root ::= " + '"a" ws ' * 5000 + '\nws ::= " "?'},
        {"grammar": "root ::= " + " | ".join(f'"{n}"' for n in range(1000))},
        {"json_schema": {"pattern": r"^[a-z._%+-]+@[a-z.-]+\.[a-z]{2,}(?:\?.*)?$"}},
        {"grammar_triggers": [{"type": 0, "value": "<t>", "token": 5}]},
        {"grammar": 5},
        {"json_schema": {"type": "array", "items": nested(5), "maxItems": 10_000}},
        {"json_schema": {"properties": {"minItems": {"type": "integer"}}}},
        {"json_schema": {"properties": {"enum": {}, "pattern": {}, "anyOf": {}}}},
        {"json_schema": {"const": 10**12, "maximum": 10**18, "default": 10**9}},
        {"json_schema": {"$ref": "#", "enum": ["a"] * 5000}},
        {"json_schema": {"pattern": r"^\d{5}\{[({]99999999\)$"}},
        {"json_schema": "text"},
        {"response_format": None},
        {"tools": None, "stop": None, "logit_bias": None},
        {"tools": [{"function": {"name": f"f{n}"}} for n in range(300)]},
        {"stop": "\n", "n_probs": 20, "logprobs": True, "top_logprobs": 20},
        {"stop": ["a", "b"], "logit_bias": {"5": -100}, "repeat_last_n": -1},
        {"samplers": ["top_k", "temperature"], "dry_sequence_breakers": ["\n", ":"]},
    ],
)
def test_what_is_usual_passes(fields: dict[str, Any]) -> None:
    assert refusal(**fields) == ""


def test_what_was_refused_once_is_refused_again() -> None:
    assert refusal(json_schema=HUGE) == refusal(json_schema=HUGE) != ""


def test_the_limits_are_those_of_the_settings() -> None:
    settings = BalancerSettings(grammar_repeats=7)

    assert settings.list_entries == Caps().entries
    assert settings.grammar_depth == Caps().depth
    assert settings.grammar_choices == Caps().choices
    assert settings.grammar_limit_kib * 1024 == Caps().size


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
@pytest.mark.parametrize("none", [[], "Hello", {"role": "user"}, 5, None])
async def test_no_messages_are_no_conversation(path: str, none: Any) -> None:
    """An engine would write something all the same."""
    async with fake_node() as node, endpoint(node) as balancer:
        answer = await balancer.post(path, chat(messages=none))
        spaced = await balancer.post(CHAT, b'{"model": "small", "messages": [ ]}')

    loads = path == "/api/chat" and none in ([], None)  # how Ollama's clients load one
    assert answer.status == (200 if loads else 400)
    assert spaced.status == 400
    assert "at least one message" in spaced.json["error"]["message"]


async def test_no_engine_sees_what_is_refused() -> None:
    async with (
        fake_node() as node,
        endpoint(node, grammar_repeats=50) as balancer,
    ):
        schema = in_format({"type": "array", "minItems": 51})
        answer = await balancer.post(CHAT, chat(response_format=schema))

    assert answer.status == 400
    assert answer.error == (
        "response_format.json_schema.schema.minItems is 51; it may be 50 at most"
        " (`grammar_repeats`)"
    )
    assert node.told == []
