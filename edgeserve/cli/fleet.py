"""`edgeserve nodes`, `models` and `usage`: the commands that show the fleet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from edgeserve.cli.client import endpoint, endpoint_options, json_option, show
from edgeserve.help import examples
from edgeserve.terminal import Entry, Row

GIB = 2**30

Json = Mapping[str, Any]


@click.command(
    epilog=examples(
        ("edgeserve nodes", "the fleet of the balancer on this machine"),
        ("edgeserve nodes --url http://nuc:8080", "of another one"),
        ("edgeserve nodes --json | jq '.[].report.name'", "for scripts"),
    )
)
@endpoint_options
@json_option
def nodes(url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Show the fleet's nodes, and what each serves."""
    found = endpoint(url, api_key_file).get("/edgeserve/v1/nodes")
    none = "no nodes yet; `edgeserve node start` starts one"
    show(url, found, NODE_HEADS, node_rows, none, as_json=as_json)


@click.command(
    epilog=examples(
        ("edgeserve models", "what can be called now"),
        ("edgeserve models --json | jq -r '.data[].id'", "names only, for scripts"),
    )
)
@endpoint_options
@json_option
def models(url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Show the models that can be called now."""
    found = endpoint(url, api_key_file).get("/v1/models")
    none = "no model yet; `edgeserve nodes` says what is there"
    show(url, found, MODEL_HEADS, model_rows, none, as_json=as_json)


@click.command(
    epilog=examples(
        ("edgeserve usage", "of the last 30 days, by key, model and day"),
        ("edgeserve usage --days 7 --key laptop", "one key's"),
        ("edgeserve usage --json", "for scripts"),
    )
)
@endpoint_options
@click.option(
    "--days",
    type=click.IntRange(1, 3660),
    default=30,
    show_default=True,
    help="How many days, the last one today.",
)
@click.option("--key", "name", help="Name of one key.")
@json_option
def usage(
    url: str, api_key_file: Path | None, name: str | None, *, days: int, as_json: bool
) -> None:
    """Show the requests and tokens of each key, by model and day.

    `cached` are tokens of prompts that were not read again. A key that is not an admin
    sees its own usage.
    """
    query = {"days": days} | ({"key": name} if name else {})
    path = f"/edgeserve/v1/usage?{urlencode(query)}"
    found = endpoint(url, api_key_file).get(path)
    heads = tuple(head.removesuffix("_tokens") for head in USAGE)
    none = f"nothing was used in {days} days"
    show(url, found, heads, usage_rows, none, as_json=as_json)


USAGE = (
    *("key", "model", "day", "requests"),
    *("prompt_tokens", "cached_tokens", "answer_tokens"),
)


def usage_rows(found: list[Json]) -> list[Row]:
    """One row per key, model and day."""
    return [tuple(str(each[head]) for head in USAGE) for each in found]


UNHEALTHY = {
    "suspect": "failed, being probed",
    "open": "keeps failing, set aside",
    "half-open": "keeps failing, being probed",
}
"""Texts for the health of an engine; healthy states have none."""

NODE_HEADS = ("node", "state", "address", "GiB free", "hottest")
MODEL_HEADS = ("model", "can", "context", "slots", "nodes")


def node_rows(found: list[Json]) -> list[Entry]:
    """Return one row per node; below it its engines and problems."""
    return [_entry(node) for node in found]


def _entry(node: Json) -> Entry:
    state, trouble = str(node["state"]), node.get("problem")
    # Where none of several addresses answers, the problem names each.
    where = str(node["url"]).partition(", ")[0]
    report: Json | None = node["report"]
    if report is None:
        cells = (_announced(node), state, where, "", "")
        return Entry(cells, [str(trouble)] if trouble else [])
    health: Json = node.get("health", {})
    lines = [_engine(each, health.get(each["id"])) for each in report["engines"]]
    problems = (trouble, *report.get("problems", ()))
    lines += [str(problem) for problem in problems if problem]
    name = str(node.get("name") or report["name"])
    cells = (name, state, where, *_condition(report["hardware"]))
    return Entry(cells, lines or ["serves nothing"])


def _announced(node: Json) -> str:
    """Return the name in its mDNS announcement; a `?` where it has none."""
    for key in node.get("seen_as", ()):
        name, service, _ = str(key).partition("._edgeserve._tcp.")
        if service:
            return name
    return "?"


def _engine(engine: Json, health: str | None) -> str:
    state = str(engine["state"])
    if state in {"ready", "busy"}:
        unhealthy = f"; {UNHEALTHY[health]}" if health in UNHEALTHY else ""
        busy = f"{engine['busy']} of {engine['slots']} slots busy"
        return f"{engine['id']}: {busy}{unhealthy}"
    reason = engine.get("reason")
    return f"{engine['id']}: {state}{f' ({reason})' if reason else ''}"


def _condition(hardware: Json) -> tuple[str, str]:
    memory, celsius = hardware["memory"], hardware["thermal"].get("celsius")
    free = f"{memory['available'] / GIB:.1f} of {memory['total'] / GIB:.1f}"
    return free, "" if celsius is None else f"{celsius:.0f} °C"


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
