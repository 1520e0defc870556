"""Table of nodes: one row for each, below it its engines and what is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgeserve.cli.groups.shown import members_text, worker_lines
from edgeserve.terminal import Entry

MIB, GIB = 2**20, 2**30

Json = Mapping[str, Any]

UNHEALTHY = {
    "suspect": "failed, being probed",
    "open": "keeps failing, set aside",
    "half-open": "keeps failing, being probed",
}
"""Texts for the health of an engine; healthy states have none."""

NODE_HEADS = ("node", "state", "address", "GiB free", "hottest")


def node_rows(found: list[Json]) -> list[Entry]:
    """Return one row per node; below it its engines and problems."""
    return [_entry(node) for node in found]


def _entry(node: Json) -> Entry:
    state, trouble = str(node["state"]), node.get("problem")
    # Where none of several addresses answers, the problem names each.
    where = str(node["url"]).partition(", ")[0]
    report: Json | None = node["report"]
    if report is None:
        name = str(node.get("name") or _announced(node))
        cells = (name, state, where, "", "")
        return Entry(cells, [str(trouble)] if trouble else [])
    health: Json = node.get("health", {})
    engines = [each for each in report["engines"] if each["state"] != "absent"]
    joules: Json = node.get("joules", {})
    lines = [
        _engine(each, health.get(each["id"])) + _energy(joules.get(each["id"]))
        for each in engines
        if state != "asleep"
    ]
    lines += _on_demand(report["engines"], asleep=state == "asleep")
    lines += [*worker_lines(report), *map(_pull, _going(report))]
    unmet = (
        f"{each['model']}: {each['reason']}; {each['remedy']}"
        for each in report.get("unmet", ())
    )
    reported = (*report.get("problems", ()), *report.get("slowed", ()))
    problems = (trouble, _sleep(node), *reported, *unmet)
    told = [str(problem) for problem in problems if problem]
    lines += told + list(_available(report, told))
    name = str(node.get("name") or report["name"])
    cells = (name, state, where, *_condition(report["hardware"]))
    return Entry(cells, lines or ["serves nothing"])


def _sleep(node: Json) -> str:
    """Say that a machine sleeps; why it cannot be woken is a problem of the node."""
    if node["state"] != "asleep" or node.get("problem"):
        return ""
    return "sleeps; a request that needs it wakes it"


def _energy(joules: Json | None) -> str:
    """Say what a token takes, where that was measured."""
    if not joules or not joules.get("measured"):
        return ""
    return f"; {joules['write']:.2g} J to write a token, {joules['read']:.2g} to read"


def _on_demand(engines: list[Json], *, asleep: bool) -> list[str]:
    """Return one line for all that load when they are asked for, or wake up."""
    absent = [
        str(each["id"]) for each in engines if asleep or each["state"] == "absent"
    ]
    return [f"on demand: {', '.join(absent)}"] if absent else []


def _going(report: Json) -> list[Json]:
    """Return the pulls that wait or fetch."""
    going = ("waiting", "fetching")
    return [each for each in report.get("pulls", ()) if each["state"] in going]


def _pull(pull: Json) -> str:
    """Return how far a pull is."""
    source, state, step = pull["source"], pull["state"], pull.get("step")
    if state == "fetching" and pull.get("total"):
        done, total = pull["done"] // MIB, pull["total"] // MIB
        return f"pulls {source}: {done} of {total} MiB of {pull['file']}"
    return f"pulls {source}: {state}{f' ({step})' if step else ''}"


def _available(report: Json, told: list[str]) -> Iterator[str]:
    """Yield a line for each model without an engine, unless a problem tells of it."""
    for each in report.get("available", ()):
        reason = str(each["reason"])
        if not any(reason in problem for problem in told):
            yield f"{each['variant']}: not served ({reason}; {each['remedy']})"


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
        about = f"{unhealthy}{members_text(engine)}{_goes_on(engine)}"
        return f"{engine['id']}: {busy}{about}"
    reason = f" ({engine['reason']})" if engine.get("reason") else ""
    return f"{engine['id']}: {state}{reason}{members_text(engine)}"


def _goes_on(engine: Json) -> str:
    """Say whether a server of another program goes on with answers that break off."""
    if engine.get("kind") != "server":
        return ""
    served = engine.get("served") or {}
    shown = ", ".join(served.get("resumes", ()))
    tried = shown or ("no" if served.get("restarts") else "untested")
    return f"; goes on with broken answers: {tried}"


def _condition(hardware: Json) -> tuple[str, str]:
    memory, celsius = hardware["memory"], hardware["thermal"].get("celsius")
    if not memory["total"]:  # a server that is no node
        return "", ""
    free = f"{memory['available'] / GIB:.1f} of {memory['total'] / GIB:.1f}"
    return free, "" if celsius is None else f"{celsius:.0f} °C"
