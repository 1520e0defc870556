"""`edgeserve models`: list the models of a fleet; the group of commands for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgeserve.cli.client import endpoint, endpoint_options, json_option, show
from edgeserve.cli.groups.commands import group
from edgeserve.cli.models.adopt import adopt
from edgeserve.cli.models.details import show_, state_text
from edgeserve.cli.models.loading import load
from edgeserve.cli.models.orders import limit, pin, unload
from edgeserve.cli.models.shelf import here_option, rm, show_here
from edgeserve.help import Group, examples
from edgeserve.terminal import Row

GIB = 2**30

Json = Mapping[str, Any]

MODEL_HEADS = ("model", "state", "variants", "nodes", "GiB", "can")


@click.group(
    cls=Group,
    headings={
        "What is loaded": ("show", "load", "unload", "pin", "limit", "group"),
        "Files": ("adopt", "rm"),
    },
    invoke_without_command=True,
    epilog=examples(
        ("edgeserve models", "what can be called, loaded or not"),
        ("edgeserve models show qwen3-4b", "one of them, in full"),
        ("edgeserve models load qwen3-4b --node pi", "load it before it is asked for"),
        ("edgeserve models pin qwen3-4b", "keep it loaded"),
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
    """Show the models that can be called.

    A model that is `available` is on the disk of a node, which loads it when it is
    asked for. The commands below decide what is loaded where.
    """
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


def model_rows(found: Json) -> list[Row]:
    """One row per model."""
    return [
        (
            str(model["id"]),
            state_text(model),
            ", ".join(map(_label, model.get("variants", ()))),
            ", ".join(_nodes(model)),
            _size(each.get("memory", 0) for each in model.get("variants", (model,))),
            ", ".join(model.get("abilities", ())),
        )
        for model in found["data"]
    ]


def _nodes(model: Json) -> Sequence[str]:
    """Return the nodes that have it loaded, else those that load it, or would."""
    places = (model.get(each) for each in ("nodes", "loading", "on_demand"))
    return next(filter(None, places), ())


def _label(variant: Json) -> str:
    name = str(variant["name"])
    return name.partition(":")[2] or name


def _size(found: Iterable[int]) -> str:
    """Return the memory of the variants in GiB, the least and the most."""
    known = [f"{each / GIB:.1f}" for each in sorted(found) if each]
    return " to ".join(dict.fromkeys((known[0], known[-1]))) if known else ""


for each in (show_, load, unload, pin, limit, group, adopt, rm):
    models.add_command(each)
