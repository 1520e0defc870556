"""`edgeserve models show`: all that is known of one model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from edgeserve.cli.client import (
    Endpoint,
    Refusal,
    endpoint,
    endpoint_options,
    json_option,
    show,
)
from edgeserve.cli.groups.shown import members_text
from edgeserve.help import Command, examples
from edgeserve.terminal import Row

OVERVIEW = "/edgeserve/v1/models"
"""Where admins see what clients do not: limits, problems, each engine."""

NOT_FOUND, FORBIDDEN = 404, 403

GIB = 2**30

Json = Mapping[str, Any]


@click.command(
    "show",
    cls=Command,
    epilog=examples(("edgeserve models show qwen3-4b", "where, and what is wrong")),
)
@click.argument("name")
@endpoint_options
@json_option
def show_(name: str, url: str, api_key_file: Path | None, *, as_json: bool) -> None:
    """Show one model: where it is or could be loaded, limits, problems.

    NAME is a model, a variant or a file. Limits, problems and single engines are shown
    to admins.
    """
    found = known(endpoint(url, api_key_file), name)
    show(url, found, ("", ""), detail_rows, "", as_json=as_json)


def known(place: Endpoint, name: str) -> Json:
    """Return what clients see of a model, and as `fleet` what admins see.

    Raises Refusal where neither knows it.
    """
    unknown, model = None, {"id": name}
    try:
        model = place.get(f"/v1/models/{quote(name, safe='')}")
    except Refusal as refusal:
        if refusal.status != NOT_FOUND:
            raise
        unknown = refusal
    base = str(model.get("variant_of") or model["id"]).lower().partition(":")[0]
    row = next((r for r in _overview(place) if r["model"] == base), None)
    if unknown and row is None:
        raise unknown
    return {**model, "fleet": row}


def _overview(place: Endpoint) -> list[Json]:
    """Return the rows of all models; none for a key that is no admin's."""
    try:
        found: list[Json] = place.get(OVERVIEW)
    except Refusal as refusal:
        if refusal.status not in {FORBIDDEN, NOT_FOUND}:
            raise
        return []
    return found


def detail_rows(model: Json) -> list[Row]:
    """One row per fact."""
    rows: list[Row] = [("model", str(model["id"]))]
    if "state" in model:
        rows += _as_clients_see(model)
    if model["fleet"]:
        rows += _as_admins_see(model["fleet"])
    return rows


def state_text(model: Json) -> str:
    """Return its state, with the share of its load that is done."""
    state, progress = str(model.get("state", "")), model.get("progress")
    return state if progress is None else f"{state} {progress * 100:.0f} %"


def _as_clients_see(model: Json) -> Iterator[Row]:
    yield "state", state_text(model)
    yield "can", ", ".join(model["abilities"])
    context = model["context"]
    yield "context", f"{context} tokens" if context else "unknown"
    yield "slots", str(model["slots"])
    if "route" in model:
        yield "stands for", ", else ".join(model["route"])
    yield "loaded on", ", ".join(model["nodes"]) or "no node"
    if model.get("loading"):
        yield "loading on", ", ".join(model["loading"])
    if model.get("on_demand"):
        yield "loads on", ", ".join(model["on_demand"])
    for each in model.get("variants", ()):
        yield "variant", f"{each['name']}, {each['state']}"


def _as_admins_see(fleet: Json) -> Iterator[Row]:
    for each in fleet["engines"]:
        yield "engine", _engine(each["node"], each["report"])
    for each in fleet["unplanned"]:
        where = f"{each['variant']} on {each['node']}"
        yield "not served", f"{where}: {each['reason']}; {each['remedy']}"
    for each in fleet["limits"]:
        yield "limits", f"{each['model']}: {_limits(each)}"
    for each in fleet["desired"]:
        yield "desired", f"{each['model']} on {each['node']}: {desired_text(each)}"
    for each in fleet["problems"]:
        where = f"{each['model']}" + (f" on {each['node']}" if each["node"] else "")
        yield "problem", f"{where}: {each['reason']}; {each['remedy']}"


def _engine(node: str, report: Json) -> str:
    state = "on demand" if report["state"] == "absent" else str(report["state"])
    slots = "1 slot" if report["slots"] == 1 else f"{report['slots']} slots"
    facts = [f"{report['id']} on {node}: {state}"]
    facts += ["pinned"] if report.get("pinned") else []
    facts.append(f"{slots} of {report['context']} tokens")
    if report.get("memory"):
        facts.append(f"{report['memory'] / GIB:.1f} GiB")
    if report.get("file"):
        facts.append(str(report["file"]))
    if report["state"] == "absent" and report.get("load_seconds"):
        facts.append(f"loads in {report['load_seconds']:.0f} s")
    if report["state"] == "absent" and report.get("evicts"):
        facts.append(f"{', '.join(report['evicts'])} would leave for it")
    if report.get("reason"):
        facts.append(str(report["reason"]))
    return ", ".join(facts) + members_text(report)


def _limits(limits: Json) -> str:
    given = [(name, limits[name]) for name in ("min", "max")]
    return ", ".join(f"{name} {each}" for name, each in given if each is not None)


def desired_text(desired: Json) -> str:
    """Say what a node was told about a model."""
    said = [word for word in ("pinned", "forbidden") if desired[word]]
    keep_alive = desired["keep_alive"]
    if keep_alive is not None:
        idle = f"leaves after {keep_alive:g} idle seconds"
        said.append(idle if keep_alive else "stays while idle")
    return ", ".join(said) or "as usual"
