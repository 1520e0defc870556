"""`edgeserve nodes` and `edgeserve models`: the fleet as tables, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from edgeserve.client import NoAnswer, endpoint, endpoint_options
from edgeserve.columns import Row, print_table
from edgeserve.examples import examples

GIB = 2**30

Json = Mapping[str, Any]

as_json = click.option(
    "--json", "as_json", is_flag=True, help="Print what the balancer answered."
)


@click.command(
    epilog=examples(
        ("edgeserve nodes", "the fleet of the balancer on this machine"),
        ("edgeserve nodes --url http://nuc:8080", "of another one"),
        ("edgeserve nodes --json | jq '.[].report.name'", "for scripts"),
    )
)
@endpoint_options
@as_json
def nodes(url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Show the fleet's nodes, and what each serves."""
    found = endpoint(url, api_key_file).get("/edgeserve/v1/nodes")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = _shaped(url, node_rows, found)
    _print(NODE_HEADS, rows, "no nodes yet; `edgeserve node start` starts one")


@click.command(
    epilog=examples(
        ("edgeserve models", "what can be called now"),
        ("edgeserve models --json | jq -r '.data[].id'", "names only, for scripts"),
    )
)
@endpoint_options
@as_json
def models(url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Show the models that can be called now."""
    found = endpoint(url, api_key_file).get("/v1/models")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    rows = _shaped(url, model_rows, found)
    _print(MODEL_HEADS, rows, "no model yet; `edgeserve nodes` says what is there")


UNWELL = {
    "suspect": "failed, being probed",
    "open": "keeps failing, set aside",
    "half-open": "keeps failing, being probed",
}
"""What the balancer's words for an engine's health mean; others want no attention."""

NODE_HEADS = ("node", "state", "address", "engine", "busy", "GiB free", "hottest")
MODEL_HEADS = ("model", "can", "context", "slots", "nodes")


def node_rows(found: list[Json]) -> list[Row]:
    """One row per engine; a node without any has one row, too."""
    return [row for sighting in found for row in _rows(sighting)]


def _rows(sighting: Json) -> list[Row]:
    where = (str(sighting["state"]), str(sighting["url"]))
    report: Json | None = sighting["report"]
    trouble = sighting.get("problem")
    if report is None:
        return [("?", *where, str(trouble or ""), "", "", "")]
    health: Json = sighting.get("health", {})
    lines = [_engine(each, health.get(each["id"])) for each in report["engines"]]
    problems = (trouble, *report.get("problems", ()))
    lines += [(str(problem), "") for problem in problems if problem]
    first, *others = lines or [("none", "")]
    return [
        (
            str(sighting.get("name") or report["name"]),
            *where,
            *first,
            *_condition(report["hardware"]),
        ),
        *(("", "", "", *line, "", "") for line in others),
    ]


def _engine(engine: Json, health: str | None) -> tuple[str, str]:
    state = str(engine["state"])
    if state in {"ready", "busy"}:
        unwell = f": {UNWELL[health]}" if health in UNWELL else ""
        return f"{engine['id']}{unwell}", f"{engine['busy']}/{engine['slots']}"
    reason = engine.get("reason")
    return f"{engine['id']}: {state}{f' ({reason})' if reason else ''}", ""


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


def _shaped(url: str, rows: Any, found: Any) -> list[Row]:
    try:
        shaped: list[Row] = rows(found)
    except (KeyError, TypeError, AttributeError) as error:
        raise NoAnswer(
            f"{url} answers, but not like an edgeserve balancer of this version"
        ) from error
    return shaped


def _print(heads: Row, rows: Sequence[Row], otherwise: str) -> None:
    if rows:
        print_table(heads, rows)
    else:
        click.echo(otherwise, err=True)
