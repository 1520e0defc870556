"""Request translation: rewrites or refuses fields that llama.cpp ignores. Pure.

llama.cpp answers as if such fields were absent: in prose where the request has a
schema, without a tool where the request names one, without the echo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from balancer.dialects.base import Dialect, OutputFormat
from balancer.validation.schema import schema_error
from edgeserve.errors import BadRequest
from edgeserve.json_edit import raw_fields
from edgeserve.openai import RequestFields, fields

Put = dict[str, object]


def translated(dialect: type[Dialect], request: RequestFields, body: bytes) -> Put:
    """Return the fields to set. Raises BadRequest."""
    put: Put = {}
    if dialect.has_echo:
        _refuse_echo(request)
    if dialect.unsupported:
        _refuse_unsupported(dialect.unsupported, request, body)
    if dialect.any_tool is not None:
        put = _tools(dialect, request, body)
    put |= _output_format(dialect.output_format, request)
    schema = value(request.json_schema)
    if schema is not None:
        _valid(schema)
    return put


def value(raw: msgspec.Raw) -> Any:
    """Decode a raw field, None where it is absent."""
    return msgspec.json.decode(raw) if raw else None


# Output format


def _output_format(field: OutputFormat | None, request: RequestFields) -> Put:
    match field:
        case "response_format":
            _format(value(request.response_format))
            return {}
        case "json_schema":
            return _schema_of(_format(value(request.response_format)))
        case "text":
            return _text(value(request.text))
        case None:
            return {}


def _format(shape: Any) -> Any:
    """Check a `response_format`; return its schema, None where there is none."""
    if shape is None:
        return None
    if not isinstance(shape, dict):
        raise BadRequest("`response_format` must be an object with a `type`")
    match shape.get("type"):
        case "json_schema":
            within = shape.get("json_schema")
            if not isinstance(within, dict):
                raise BadRequest("`response_format` lacks its `json_schema`")
            return _valid(within.get("schema", {}))
        case "json_object":
            return _valid(shape.get("schema") or {})
        case _:
            return None  # llama.cpp refuses it


def _valid(schema: Any) -> Any:
    if wrong := schema_error(schema):
        raise BadRequest(f"the JSON schema makes no sense: {wrong}")
    return schema


def _schema_of(schema: Any) -> Put:
    return {} if schema is None else {"json_schema": schema}


def _text(text: Any) -> Put:
    """Turn the `text.format` of /v1/responses into chat's `response_format`."""
    shape = text.get("format") if isinstance(text, dict) else None
    if shape is None:
        return {}
    match shape:
        case {"type": "text"}:
            return {}
        case {"type": "json_object"}:
            return {"response_format": {"type": "json_object"}}
        case {"type": "json_schema", "schema": schema}:
            wanted = {k: v for k, v in shape.items() if k != "type"}
            _valid(schema)
            return {"response_format": {"type": "json_schema", "json_schema": wanted}}
        case _:
            raise BadRequest(
                "`text.format` must be of type text, json_object, or json_schema with"
                " its `schema`"
            )


# Tools


def is_forced(choice: Any) -> bool:
    """Whether a `tool_choice` requires a tool."""
    if isinstance(choice, dict):
        within: Any = choice.get("allowed_tools", choice)
        if choice.get("type") == "allowed_tools":
            return isinstance(within, dict) and within.get("mode") == "required"
        return str(choice.get("type")) in {"function", "tool", "any"}
    return bool(choice == "required")


def _tools(dialect: type[Dialect], request: RequestFields, body: bytes) -> Put:
    """Keep only the tools that the choice names: llama.cpp knows only `required`."""
    choice = request.tool_choice
    if choice is not None and choice == dialect.no_tool:
        return {"tools": []}
    if not is_forced(choice):
        return {}
    tools = fields(body).get("tools")
    if not isinstance(tools, list) or not tools:
        raise BadRequest("`tool_choice` asks for a tool, but there are no `tools`")
    put: Put = {"tool_choice": dialect.any_tool}
    if (names := _named(choice)) is None:
        return put
    left = [each for each in tools if _name(each) in names]
    if not left:
        named = ", ".join(sorted(names))
        raise BadRequest(f"`tool_choice` names {named}, which is none of the `tools`")
    return {**put, "tools": left}


def _named(choice: Any) -> set[str] | None:
    """Return the names that a choice allows, None where it allows all."""
    match choice:
        case {"type": "allowed_tools"}:
            within = choice.get("allowed_tools", choice)
            return {_name(each) for each in within.get("tools") or ()}
        case {"type": "function" | "tool"}:
            return {_name(choice)}
        case _:
            return None


def _name(tool: Any) -> str:
    match tool:
        case {"function": {"name": str(name)}} | {"name": str(name)}:
            return name
        case _:
            return ""


# Unsupported fields


def _refuse_echo(request: RequestFields) -> None:
    if request.echo:
        raise BadRequest("`echo` is not supported here; put the prompt in front of it")
    if request.suffix:
        raise BadRequest("`suffix` is not supported here; ask /infill")
    if isinstance(request.best_of, int) and request.best_of > request.each:
        raise BadRequest("`best_of` is not supported here; ask for `n` and choose")


def _refuse_unsupported(
    unsupported: Mapping[str, str], request: RequestFields, body: bytes
) -> None:
    """Refuse fields that llama.cpp would silently ignore."""
    if request.each > 1:
        raise BadRequest("`n` is not supported on this route; ask several times")
    if not any(key.encode() in body for key in unsupported):
        return
    given = raw_fields(body)
    for key, instead in unsupported.items():
        if key in given and bytes(given[key]) not in {b"null", b"false", b'""', b"{}"}:
            if key == "output_config" and "format" not in fields(body)[key]:
                continue
            raise BadRequest(f"`{key}` is not supported here; {instead}")
