"""Requests that are wrong, over every route, as clients and hostile ones send them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.balancer.endpoint import CHAT

Case = tuple[str, dict[str, Any]]

USER = {"role": "user", "content": "hi"}
LISTED = [USER]
COMPLETIONS, RESPONSES, MESSAGES = "/v1/completions", "/v1/responses", "/v1/messages"
PIXEL = "data:image/png;base64,AAAA"
CALL = {"id": "a", "type": "function"}

NO_MESSAGES: list[Any] = [None, "hi", {}, [], [None], ["hi"], [1], [[]]]
NO_TEXTS: list[Any] = [5, None, [], {}]
NO_ROLES: list[Any] = [7, None, "wat", "tool", []]
NO_CALLS: list[Any] = ["x", [{}], [5]]
NO_TOOLS: list[Any] = ["x", [{}], [5], [{"type": "function"}]]
NO_CHOICES: list[Any] = ["wat", 5, "required"]
NO_FORMATS: list[Any] = ["x", {"type": "wat"}]
NO_GRAMMARS: list[Any] = ["root ::= ", "((", 5, "root ::= root"]
NO_CONTENTS: list[Any] = [None, 5, {}, ["x", {}]]
NO_TEMPLATES: list[Any] = [5, [{}], [{"role": "user", "content": {}}]]
NO_SCHEMAS: list[Any] = [{"type": "wat"}, 5, {"$ref": "#/nowhere"}]

BODIES: list[dict[str, Any]] = [
    {},
    *({"messages": each} for each in NO_MESSAGES),
]
CONTENTS: list[Any] = [
    *(None, 5, {}, [], [None], ["x"], [{}], [{"type": "wat"}], [{"type": "text"}]),
    *([{"type": "text", "text": each}] for each in NO_TEXTS),
    [{"type": "image_url", "image_url": {"url": PIXEL}}],
    [{"type": "image_url"}],
    [{"type": "image_url", "image_url": 5}],
    [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}],
    [{"type": "video_url", "video_url": {"url": "x"}}],
]
TURNS: list[Any] = [
    *({}, {"role": "user"}, {"content": "x"}),
    *({"role": each, "content": "x"} for each in NO_ROLES),
    {"role": "tool"},
    {"role": "tool", "tool_call_id": 5, "content": None},
    {"role": "assistant"},
    *({"role": "assistant", "tool_calls": each} for each in NO_CALLS),
    {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": 5}}]},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{not json"}}],
    },
]
CHAT_FIELDS: list[dict[str, Any]] = [
    *({"tools": each} for each in NO_TOOLS),
    {"tools": [{"type": "function", "function": {"parameters": {}}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]},
    *({"tool_choice": each} for each in NO_CHOICES),
    *({"response_format": each} for each in NO_FORMATS),
    {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
    *({"grammar": each} for each in NO_GRAMMARS),
    {"grammar": "x", "json_schema": {"type": "object"}},
    *({"json_schema": each} for each in NO_SCHEMAS),
    *({"reasoning_format": each} for each in ("x", 5)),
    *({"chat_template_kwargs": each} for each in (5, {"enable_thinking": "x"})),
    {"continue_final_message": "x"},
    {"add_generation_prompt": "x"},
    {"parse_tool_calls": "x"},
]
SAMPLING: list[dict[str, Any]] = [
    *({"stop": each} for each in (5, [5], [""])),
    *({"logit_bias": each} for each in ("x", [[1]], {"x": "y"}, [[99999999, 1]])),
    *({"samplers": each} for each in (5, ["wat"], "zz")),
    *({"temperature": each} for each in ("x", -1)),
    *({"dry_sequence_breakers": each} for each in (5, [], [5])),
    {"top_k": "x"},
    {"n_probs": -5},
    {"seed": "x"},
    {"lora": [{}]},
    {"response_fields": 5},
    {"grammar_lazy": True, "grammar": 'root ::= "a"', "grammar_triggers": [{}]},
    {"preserved_tokens": [5]},
    {"repeat_last_n": -7},
    {"cache_prompt": "x"},
]
PROMPTS: list[Any] = [
    *(None, {}, [], [[]], True, "", [99999999], [-1], [1.5], ["x", None]),
    {"prompt_string": "x", "multimodal_data": ["AAAA"]},
]
TOKENS: list[Any] = [None, 5, ["x"], [99999999], [-1], [1e99]]
INPUTS: list[Any] = [
    *(5, [], [{}], [{"type": "wat"}]),
    [{"role": "user", "content": [{"type": "wat"}]}],
    [{"type": "function_call_output", "call_id": "x"}],
]
BLOCKS: list[Any] = [
    5,
    [{"type": "wat"}],
    [{"type": "tool_result"}],
    [{"type": "text"}],
]


def cases() -> Iterator[Case]:
    """Yield path and body of each; none of them asks for more than a token."""
    for body in BODIES:
        yield CHAT, body
    for content in CONTENTS:
        yield CHAT, {"messages": [{"role": "user", "content": content}]}
    for turn in TURNS:
        yield CHAT, {"messages": [USER, turn]}
    for fields in (*CHAT_FIELDS, *SAMPLING):
        yield CHAT, {"messages": LISTED, **fields}
    for prompt in PROMPTS:
        yield COMPLETIONS, {"prompt": prompt}
        yield "/completion", {"prompt": prompt}
    yield from _others()


def _others() -> Iterator[Case]:
    for tokens in TOKENS:
        yield "/detokenize", {"tokens": tokens}
    for content in NO_CONTENTS:
        yield "/tokenize", {"content": content}
    for messages in NO_TEMPLATES:
        yield "/apply-template", {"messages": messages}
    yield "/apply-template", {"messages": LISTED, "tools": 5}
    for given in INPUTS:
        yield RESPONSES, {"input": given}
    yield RESPONSES, {"input": "x", "tools": [{}]}
    for block in BLOCKS:
        yield MESSAGES, {"messages": [{"role": "user", "content": block}]}
    yield MESSAGES, {}
    yield MESSAGES, {"messages": LISTED, "system": 5}
    yield MESSAGES, {"messages": LISTED, "tools": [{}]}
    yield "/v1/messages/count_tokens", {}
    yield "/infill", {"input_prefix": 5, "input_suffix": "x"}
    yield "/v1/embeddings", {"input": {}}
    yield "/v1/rerank", {}
