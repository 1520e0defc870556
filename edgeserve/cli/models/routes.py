"""`edgeserve route`: the commands that let a name stand for models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from edgeserve.cli.client import endpoint, endpoint_options, json_option, show
from edgeserve.help import Group, examples
from edgeserve.terminal import Row

ROUTES = "/edgeserve/v1/routes"

HEADS = ("route", "models", "next if", "full after", "set in")
PLACES = {"file": "file", "set": "here"}

Json = Mapping[str, Any]


@click.group(cls=Group)
def route() -> None:
    """Let a name stand for several models, or for another name.

    Clients name the route; the first of its models answers that no reason rules out.
    Answers name the model and the reason in `x-edgeserve-route-…` headers.
    """


@route.command(
    "set",
    epilog=examples(
        (
            "edgeserve route set assistant qwen3-32b qwen3-8b",
            "the small one if need be",
        ),
        ("edgeserve route set gpt-4o qwen3-8b", "another name for a model"),
        ("edgeserve route set code big small --when away", "small only without big"),
    ),
)
@click.argument("name")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option(
    "--when",
    metavar="REASONS",
    default="away,full,too-long",
    show_default=True,
    help="Reasons to take the next model, with commas between.",
)
@click.option(
    "--full-seconds",
    type=float,
    default=10.0,
    show_default=True,
    help="Full: the first token would come later than this; away: so would a load.",
)
@click.option(
    "--min-mean-logprob",
    type=float,
    help="Cascade: least mean log-probability of the first model's tokens, such as"
    " -0.6; below it the second answers.",
)
@click.option(
    "--hold-tokens", type=int, help="Cascade: judge after so many tokens; usually 64."
)
@endpoint_options
def set_(
    name: str,
    models: tuple[str, ...],
    when: str,
    full_seconds: float,
    url: str,
    api_key_file: Path | None,
    **cascade: float | None,
) -> None:
    """Set a route, from the next request on and over restarts.

    A model is away if no engine can serve it, full if its first token would come too
    late, and a prompt is too-long if it does not fit into its context. In a cascade the
    first, small model's answer is held back until its probabilities are judged.
    """
    reasons = [word.strip() for word in when.split(",") if word.strip()]
    judged = {key: value for key, value in cascade.items() if value is not None}
    named = {"cascade" if judged else "models": models}
    body = {**named, "when": reasons, "full_seconds": full_seconds, **judged}
    endpoint(url, api_key_file).change("PUT", _path(name), body)
    click.echo(f"{name} is answered by {', else '.join(models)}")


@route.command(
    "list",
    epilog=examples(("edgeserve route list --json", "for scripts")),
)
@endpoint_options
@json_option
def list_(url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """List the routes of the settings file, and those that were set."""
    found = endpoint(url, api_key_file).get(ROUTES)
    none = "no route yet; `edgeserve route set` makes one"
    show(url, found, HEADS, route_rows, none, as_json=as_json)


@route.command(epilog=examples(("edgeserve route rm assistant", "its name is free")))
@click.argument("name")
@endpoint_options
def rm(name: str, url: str, api_key_file: Path | None) -> None:
    """Remove a route that was set; its requests that run go on."""
    endpoint(url, api_key_file).change("DELETE", _path(name))
    click.echo(f"{name} is no route any more")


def route_rows(found: list[Json]) -> list[Row]:
    """One row per route."""
    return [
        (
            str(each["name"]),
            ", ".join(each.get("models") or each["cascade"]),
            ", ".join([*each["when"], *_judged(each)]) or "never",
            f"{each['full_seconds']:g} s",
            PLACES.get(str(each["from"]), str(each["from"])),
        )
        for each in found
    ]


def _judged(each: Json) -> list[str]:
    return ["unsure"] if "cascade" in each else []


def _path(name: str) -> str:
    return f"{ROUTES}/{quote(name, safe='')}"
