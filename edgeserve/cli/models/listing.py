"""`edgeserve models`: show the models of a fleet; the group of commands for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from edgeserve.cli.client import endpoint, endpoint_options, json_option, show
from edgeserve.cli.models.adopt import adopt
from edgeserve.cli.models.shelf import here_option, rm, show_here
from edgeserve.help import Group, examples
from edgeserve.terminal import Row

Json = Mapping[str, Any]

MODEL_HEADS = ("model", "can", "context", "slots", "nodes")


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog=examples(
        ("edgeserve models", "what can be called now"),
        ("edgeserve models show smollm2", "one of them"),
        ("edgeserve models --here", "what lies in this machine's models folder"),
        ("edgeserve models --json | jq -r '.data[].id'", "names only, for scripts"),
    ),
)
@endpoint_options
@json_option
@here_option
@click.pass_context
def models(
    context: click.Context,
    url: str,
    api_key_file: Path | None,
    *,
    as_json: bool,
    here: bool,
) -> None:
    """Show the models that can be called now."""
    if context.invoked_subcommand:
        given = {"url": url, "api_key_file": api_key_file}
        context.default_map = dict.fromkeys(models.commands, given)
        return
    if here:
        show_here(as_json=as_json)
        return
    found = endpoint(url, api_key_file).get("/v1/models")
    none = "no model yet; `edgeserve nodes` says what is there"
    show(url, found, MODEL_HEADS, model_rows, none, as_json=as_json)


@models.command(
    "show", epilog=examples(("edgeserve models show smollm2", "where it runs"))
)
@click.argument("name")
@endpoint_options
@json_option
def show_(name: str, url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Show one model."""
    found = endpoint(url, api_key_file).get(f"/v1/models/{quote(name, safe='')}")
    show(url, found, ("", ""), detail_rows, "", as_json=as_json)


def detail_rows(model: Json) -> list[Row]:
    """One row per property of a model."""
    hidden = {"object", "owned_by"}
    return [(name, _text(value)) for name, value in model.items() if name not in hidden]


def _text(value: Any) -> str:
    several: list[Any] = value if isinstance(value, list) else [value]
    return ", ".join(map(str, several))


def model_rows(found: Json) -> list[Row]:
    """One row per name that can be called."""
    return [
        (
            str(model["id"]),
            ", ".join(model.get("abilities", ())),
            str(model.get("context", "")),
            str(model.get("slots", "")),
            ", ".join(map(str, model.get("nodes", ()))),
        )
        for model in found["data"]
    ]


for each in (adopt, rm):
    models.add_command(each)
