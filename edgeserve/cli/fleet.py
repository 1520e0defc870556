"""`edgeserve nodes` and `usage`: show the fleet, change its nodes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import click

from edgeserve.cli.client import (
    endpoint,
    endpoint_options,
    json_option,
    show,
    understood,
)
from edgeserve.cli.groups.shown import members_text, worker_lines
from edgeserve.cli.node_log import log
from edgeserve.errors import CommandError
from edgeserve.help import Command, Group, examples
from edgeserve.terminal import Entry, Row

MIB, GIB = 2**20, 2**30

Json = Mapping[str, Any]


@click.group(
    cls=Group,
    invoke_without_command=True,
    epilog=examples(
        ("edgeserve nodes", "the fleet of the balancer on this machine"),
        ("edgeserve nodes --url http://nuc:8080", "of another one"),
        ("edgeserve nodes --json | jq '.[].report.name'", "for scripts"),
        ("edgeserve nodes approve pi", "let a machine in that asks to join"),
        ("edgeserve nodes revoke pi", "keep a node out, at once"),
        ("edgeserve nodes log pi -f", "what it logs"),
    ),
)
@endpoint_options
@json_option
@click.pass_context
def nodes(
    context: click.Context, url: str, api_key_file: Path | None, *, as_json: bool
) -> None:
    """Show the fleet's nodes, and what each serves.

    The commands below show a node's log, and decide which machines belong to the fleet.
    NAME is a node's name, its id, or the start of the id.
    """
    if context.invoked_subcommand:
        given = {"url": url, "api_key_file": api_key_file}
        context.default_map = dict.fromkeys(nodes.commands, given)
        return
    found = endpoint(url, api_key_file).get(NODES)
    none = (
        "no nodes yet; `edgeserve node start` starts one, `edgeserve doctor` finds why"
        " one that runs is not seen"
    )
    show(url, found, NODE_HEADS, node_rows, none, as_json=as_json)


nodes.add_command(log)

NODES = "/edgeserve/v1/nodes"


@nodes.command(
    epilog=examples(
        ("edgeserve nodes approve pi", "compare the codes, then answer y"),
        ("edgeserve nodes approve pi --code 123-456", "without a question"),
    )
)
@click.argument("name")
@click.option("--code", default="", help="The code that the machine shows.")
@endpoint_options
def approve(name: str, code: str, url: str, api_key_file: Path | None) -> None:
    """Let a machine in that asks to join: it gets the fleet token.

    The machine shows a code where `edgeserve join` runs, and `edgeserve nodes` shows
    one here. Approve only if both are equal.
    """
    node = _asking(name, endpoint(url, api_key_file).get(NODES), url)
    code = code or _compared(name, node, url)
    _act(name, "approve", url, api_key_file, {"code": code})
    click.echo(f"{name} has the fleet token; `edgeserve node start` there")


def _asking(name: str, found: Any, url: str) -> Json:
    """Return the node of that name, or with that beginning of its id, that asks."""
    with understood(url):
        asking = [each for each in found if each["state"] == "asking"]
        named = [
            each
            for each in asking
            if each["name"] == name or str(each["id"]).startswith(name)
        ]
        if not named:
            there = ", ".join(str(each["name"]) for each in asking) or "none"
            raise CommandError(f"no node {name!r} asks to join; there are: {there}")
        if len(named) > 1:
            ids = " and ".join(str(each["id"]) for each in named)
            raise CommandError(
                f"several machines are called {name!r}; use an id: {ids}"
            )
        node: Json = named[0]
        return node


def _compared(name: str, node: Json, url: str) -> str:
    """Show the code of the machine, ask at a terminal, and return the code."""
    with understood(url):
        code, where = str(node["code"]), str(node["url"])
    question = f"{name} at {where} asks to join. Does it show {code}, too?"
    if sys.stdin.isatty() and not click.confirm(question):
        raise CommandError(f"not approved; `edgeserve nodes deny {name}` sends it away")
    return code


@nodes.command(epilog=examples(("edgeserve nodes deny pi", "it gets nothing")))
@click.argument("name")
@endpoint_options
def deny(name: str, url: str, api_key_file: Path | None) -> None:
    """Send a machine away that asks to join."""
    _asking(name, endpoint(url, api_key_file).get(NODES), url)
    _act(name, "deny", url, api_key_file)
    click.echo(f"{name} was sent away")


@nodes.command(epilog=examples(("edgeserve nodes revoke pi", "and rotate the token")))
@click.argument("name")
@endpoint_options
def revoke(name: str, url: str, api_key_file: Path | None) -> None:
    """Keep a node out, at once and after restarts.

    Its connections are closed; requests that it was answering go to other nodes. The
    machine still has the fleet token, with which it can return under another id and
    talk to the other nodes: `edgeserve token rotate --keep-hours 0`, with the new token
    copied to the others, shuts it out for good.
    """
    _act(name, "revoke", url, api_key_file)
    click.echo(
        f"{name} is out. Its machine still holds the fleet token: `edgeserve token"
        " rotate --keep-hours 0`, and the new token on the other machines, shuts it out"
        f" for good. `edgeserve nodes allow {name}` undoes this."
    )


@nodes.command(epilog=examples(("edgeserve nodes allow pi", "it serves again")))
@click.argument("name")
@endpoint_options
def allow(name: str, url: str, api_key_file: Path | None) -> None:
    """Let a node in again that was revoked."""
    _act(name, "allow", url, api_key_file)
    click.echo(f"{name} may join again")


def _act(
    name: str, action: str, url: str, key_file: Path | None, body: Any = None
) -> None:
    """Have the balancer do it. Raises NoAnswer."""
    path = f"{NODES}/{quote(name, safe='')}/{action}"
    endpoint(url, key_file).tell(path, body or {})


@click.command(
    cls=Command,
    epilog=examples(
        ("edgeserve usage", "of the last 30 days, by key, model and day"),
        ("edgeserve usage --days 7 --key laptop", "one key's"),
        ("edgeserve usage --json", "for scripts"),
    ),
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
    lines = [_engine(each, health.get(each["id"])) for each in engines]
    lines += _on_demand(report["engines"])
    lines += [*worker_lines(report), *map(_pull, _going(report))]
    unmet = (
        f"{each['model']}: {each['reason']}; {each['remedy']}"
        for each in report.get("unmet", ())
    )
    reported = (*report.get("problems", ()), *report.get("slowed", ()))
    problems = (trouble, *reported, *unmet)
    told = [str(problem) for problem in problems if problem]
    lines += told + list(_available(report, told))
    name = str(node.get("name") or report["name"])
    cells = (name, state, where, *_condition(report["hardware"]))
    return Entry(cells, lines or ["serves nothing"])


def _on_demand(engines: list[Json]) -> list[str]:
    """Return one line for all that load when they are asked for."""
    absent = [str(each["id"]) for each in engines if each["state"] == "absent"]
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
